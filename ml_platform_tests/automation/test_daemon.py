"""A home whose daemon is left alone: what lands is taken, and a run that is killed is finished by another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pytest

import ml_platform_tests
from ml_platform.dead_runs import PROCESS_TAG
from ml_platform.instance import prepare_instance
from ml_platform.processes import ProcessId
from ml_platform.settings import Settings, child_environment
from ml_platform.stages import stages_of
from ml_platform.stages.chain import State
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform_tests.automation.daemon_pipeline import PIPELINE
from ml_platform_tests.conftest import fresh_settings, land_samples

pytestmark = pytest.mark.slow

PATIENCE = 300.0
T = TypeVar("T")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return fresh_settings(tmp_path_factory.mktemp("daemon") / "home")


@pytest.fixture(scope="module")
def daemon(home: Settings) -> Iterator[None]:
    """`ml-platform ui` on the home."""
    environment = child_environment(
        ML_PLATFORM_HOME=str(home.home),
        ML_PLATFORM_PIPELINES="ml_platform_tests.automation.daemon_pipeline",
        ML_PLATFORM_SETTLE_SECONDS="0",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_platform.cli", "ui", "--port", "0"],
        env=environment,
        cwd=Path(ml_platform_tests.__file__).parent.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "Ctrl-C stops everything" in line:
            break
    else:
        raise AssertionError("".join(said))
    threading.Thread(target=process.stderr.read, daemon=True).start()  # its children must never wait for a reader
    yield
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


@pytest.fixture
def instance(home: Settings) -> Iterator[dg.DagsterInstance]:
    with prepare_instance(home) as opened:
        yield opened


def until(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {PATIENCE:.0f} s")


def runs(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
    """Newest first."""
    return list(instance.get_runs(filters=dg.RunsFilter(job_name="tiny_chain", statuses=list(statuses))))


def test_what_lands_is_taken_and_trained_on(daemon: None, home: Settings, instance: dg.DagsterInstance) -> None:
    land_samples(PIPELINE, landing_of(home), keep=lambda batch: batch < "lot-05")
    run = until(lambda: next(iter(runs(instance, dg.DagsterRunStatus.SUCCESS)), None), "a run has succeeded")
    assert run.tags["ml_platform/trigger"] == "new data"
    chain = chain_of(stages_of(PIPELINE), home, instance)
    batches = ("lot-01", "lot-02", "lot-03", "lot-04")
    assert {b: s.state for b, s in chain.statuses("features").items()} == dict.fromkeys(batches, State.FRESH)
    assert chain.statuses("registered_model")[""].state is State.FRESH
    assert set(instance.get_dynamic_partitions("tiny_batches")) == set(batches)


def test_a_run_that_is_killed_is_marked_and_finished_by_another(
    daemon: None, home: Settings, instance: dg.DagsterInstance
) -> None:
    land_samples(PIPELINE, landing_of(home), keep=lambda batch: batch >= "lot-05")

    def executed() -> dg.DagsterRun | None:
        going = runs(instance, dg.DagsterRunStatus.STARTED)
        return going[0] if going and PROCESS_TAG in going[0].tags else None

    before = {run.run_id for run in runs(instance, dg.DagsterRunStatus.SUCCESS)}
    victim = until(executed, "a run is executed")
    os.kill(ProcessId.from_text(victim.tags[PROCESS_TAG]).pid, signal.SIGKILL)

    def finished() -> dg.DagsterRun | None:
        return next((run for run in runs(instance, dg.DagsterRunStatus.SUCCESS) if run.run_id not in before), None)

    until(finished, "another run has finished it")
    killed = instance.get_run_by_id(victim.run_id)
    assert killed is not None
    assert killed.status == dg.DagsterRunStatus.FAILURE
    chain = chain_of(stages_of(PIPELINE), home, instance)
    assert {s.state for s in chain.statuses("features").values()} == {State.FRESH}
    assert len(chain.batches()) == 6
    assert chain.statuses("registered_model")[""].state is State.FRESH
