"""With `ml-platform ui` up: `run` takes its turn in the server's queue, and the backfill page's request works."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import ml_platform_tests
from ml_platform.dead_runs import PROCESS_TAG
from ml_platform.errors import SetupError
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform.processes import ProcessId
from ml_platform.server import NOTE, Server, find
from ml_platform.settings import Settings, child_environment
from ml_platform.stages import stages_of
from ml_platform.stages.chain import State, Status
from ml_platform.stages.follow import follow
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.launch.conftest import pids, wait_until
from ml_platform_tests.stages.conftest import LOTS
from ml_platform_tests.tiny_pipeline.data import readings

PATIENCE = 300.0

BACKFILL = """mutation Backfill($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
TERMINATE = """mutation End($id: String!) { terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) {
  __typename ... on PythonError { message } } }"""
BACKFILL_STATUS = """query Status($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status } } }"""


@dataclass(frozen=True)
class Up:
    """A home with the UI up, whose sensors leave it alone."""

    settings: Settings
    url: str

    def command(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", *words],
            env=environment(self.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, query: str, **variables: object) -> Mapping[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: Mapping[str, Any] = json.load(response)
        assert "errors" not in answer, answer
        data: Mapping[str, Any] = answer["data"]
        return data


def environment(settings: Settings) -> dict[str, str]:
    return child_environment(
        ML_PLATFORM_HOME=str(settings.home),
        ML_PLATFORM_PIPELINES="ml_platform_tests.tiny_pipeline",
        ML_PLATFORM_SETTLE_SECONDS="0",
        ML_PLATFORM_AUTOMATION="false",
        COLUMNS="200",
    )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline) -> Iterator[Up]:
    settings = fresh_settings(tmp_path_factory.mktemp("queue") / "home")
    land_samples(tiny, landing_of(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_platform.cli", "ui", "--port", "0"],
        env=environment(settings),
        cwd=Path(ml_platform_tests.__file__).parent.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "Ctrl-C stops everything" in line:
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    found = re.search(r"Dagster\s+(http://\S+)", said)
    assert found is not None, said
    yield Up(settings, found[1])
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert not (settings.dagster_home / NOTE).exists()


def test_a_run_goes_through_the_queue_and_its_outcome_comes_back(up: Up) -> None:
    command = up.command("run", "tiny", "--select", "raw_batch", "--select", "validated_batch")
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 0, err
    assert re.search(r"validated_batch +6 ", out), out
    assert "6 accepted, 0 rejected" in out
    with prepare_instance(up.settings) as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert ProcessId.from_text(run.tags[PROCESS_TAG]).pid != command.pid
        events = {e.dagster_event_type for e in instance.all_logs(run.run_id) if e.is_dagster_event}
        assert dg.DagsterEventType.PIPELINE_ENQUEUED in events
        assert run.run_config["stages"] == ["raw_batch", "validated_batch"]


def test_a_run_that_fails_there_fails_here(up: Up) -> None:
    command = up.command("run", "tiny", "--select", "trained_model", "--set", "train.epochs=2")
    out, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert "training_set has not been materialized" in out


def test_ctrl_c_leaves_the_run_to_the_server_and_says_where_it_is(up: Up) -> None:
    before = _runs(up)
    command = up.command("run", "tiny", "--select", "raw_batch,validated_batch", "--force")
    assert command.stderr is not None
    for line in command.stderr:
        if "queue:" in line or "raw_batch:" in line:
            break
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 130
    (run_id,) = _runs(up) - before
    assert f"goes on in the server: {up.url}/runs/{run_id}" in err
    with prepare_instance(up.settings) as instance:
        follow(instance, run_id, lambda event: None, where=up.url)
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.is_success


def test_a_run_whose_server_is_gone_is_followed_no_longer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_platform.stages.follow.LOOK_SECONDS", 0.0)
    with prepare_instance(settings) as instance:
        run = instance.create_run_for_job(dg.job(name="some")(lambda: None), status=dg.DagsterRunStatus.STARTING)
        with pytest.raises(SetupError, match="server is gone") as caught:
            follow(instance, run.run_id, lambda event: None, where="http://127.0.0.1:1")
    assert run.run_id in str(caught.value)
    assert "--no-queue" in str(caught.value)


def test_a_backfill_asked_for_in_the_ui_is_one_run(up: Up, tiny: Pipeline) -> None:
    before = _runs(up)
    landing_of(up.settings).put(tiny, "readings", LOTS[0], readings(0, seed=9), "csv")
    assert {status.state for status in states(up, tiny, "raw_batch").values()} == {State.FRESH, State.STALE}
    keys = [{"path": ["tiny", stage]} for stage in ("raw_batch", "validated_batch")]
    with prepare_instance(up.settings) as instance:
        assert set(instance.get_dynamic_partitions("tiny_batches")) == set(LOTS)
    started = up.ask(BACKFILL, params={"assetSelection": keys, "partitionNames": LOTS, "title": "all of them"})
    backfill = started["launchPartitionBackfill"]["backfillId"]
    deadline = time.monotonic() + PATIENCE
    while (status := up.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"]) not in (
        "COMPLETED_SUCCESS",
        "COMPLETED_FAILED",
        "FAILED",
    ):
        assert time.monotonic() < deadline, status
        time.sleep(0.5)
    assert status == "COMPLETED_SUCCESS"
    assert len(_runs(up) - before) == 1
    for stage in ("raw_batch", "validated_batch"):
        found = {batch: status.state for batch, status in states(up, tiny, stage).items()}
        assert found == dict.fromkeys(LOTS, State.FRESH)


def states(up: Up, tiny: Pipeline, stage: str) -> dict[str, Status]:
    return chain_of(stages_of(tiny), up.settings).statuses(stage)


def test_a_run_that_is_terminated_in_the_ui_ends_with_its_training_job(up: Up) -> None:
    before = _runs(up)
    command = up.command("run", "tiny", "--set", "train.epochs=1000000")
    wait_until(lambda: _ranks(up) or command.poll() is not None, seconds=PATIENCE, what="training")
    assert _ranks(up), command.communicate()
    (run_id,) = _runs(up) - before
    assert up.ask(TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    with prepare_instance(up.settings) as instance:
        follow(instance, run_id, lambda event: None, where=up.url)
        assert not _ranks(up), "a run is cancelled when its job has ended, not before"
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.CANCELED
    command.communicate(timeout=PATIENCE)
    assert command.returncode == 1


def _ranks(up: Up) -> list[int]:
    return pids("-m ml_platform.training.job ", up.settings.home)


def _runs(up: Up) -> set[str]:
    with prepare_instance(up.settings) as instance:
        return {run.run_id for run in instance.get_runs()}


def test_a_note_of_a_server_that_is_gone_is_none(settings: Settings) -> None:
    assert find(settings) is None
    settings.dagster_home.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    process = {"host": "elsewhere", "boot": "b", "pid": gone.pid, "started": "1"}
    (settings.dagster_home / NOTE).write_text(json.dumps({"url": "http://127.0.0.1:1", "process": process}))
    assert find(settings) is None


def test_a_server_that_is_named_and_does_not_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not answer"):
        find(fresh_settings(tmp_path, server="http://127.0.0.1:1"))
    with pytest.raises(SetupError, match="does not answer"):
        Server("http://127.0.0.1:1").launch("some_job", {}, {})
