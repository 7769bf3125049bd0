"""A run that is killed at any instant: the next one ends with the same bytes, and runs nothing twice."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings, child_environment
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of, landing_of, store_of
from ml_platform.stages.plan import make_plan
from ml_platform.stages.summary import RunSummary
from ml_platform.store import layout
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.launch.conftest import wait_until

SEED = 20130208
INSTANTS = 50
ARTIFACTS = 23
"""What the tiny pipeline comes to."""
QUICK = 1
"""Of the instants, how many are tried in every test run; the others take half an hour."""

RUN = """
import json
from ml_platform.settings import settings
from ml_platform.stages.run import run_pipeline
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE

if __name__ == "__main__":
    summary = run_pipeline(PIPELINE, settings())
    built = {stage.name: stage.built + stage.rejected for stage in summary.stages if stage.built + stage.rejected}
    print(json.dumps({"built": built, "problems": summary.problems}))
"""


def start(settings: Settings) -> subprocess.Popen[str]:
    environment = child_environment(
        ML_PLATFORM_HOME=str(settings.home),
        ML_PLATFORM_LANDING=settings.landing,
        ML_PLATFORM_SETTLE_SECONDS="0",
        ML_PLATFORM_SPARK_MASTER="local[1]",
    )
    return subprocess.Popen(
        [sys.executable, "-c", RUN],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def artifacts(pipeline: Pipeline, settings: Settings) -> dict[str, dict[str, str]]:
    """Data version by fingerprint, by stage: every artifact that the store holds, each verified."""
    store = store_of(settings)
    found: dict[str, dict[str, str]] = {}
    for stage in stages_of(pipeline):
        manifests = {manifest.fingerprint: manifest for manifest in store.artifacts(pipeline.name, stage)}
        assert store.find_many(pipeline.name, stage, manifests).keys() == manifests.keys(), "half-written artifacts"
        found[stage] = {fingerprint: manifest.data_version for fingerprint, manifest in manifests.items()}
    return found


def versions(found: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """The data versions of each stage. Of trained_model it is the weights' hash."""
    return {stage: sorted(of_stage.values()) for stage, of_stage in found.items()}


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline) -> str:
    """Where the tiny pipeline's samples have landed, for all homes."""
    settings = fresh_settings(tmp_path_factory.mktemp("landed"))
    land_samples(tiny, landing_of(settings))
    return settings.landing


@pytest.fixture
def undisturbed(tiny: Pipeline, home: Settings, cold: RunSummary) -> dict[str, dict[str, str]]:
    """Data version by fingerprint, by stage, of all that a run which nobody killed has built: the suite's first one."""
    assert cold.ok
    chain = chain_of(stages_of(tiny), home)
    found: dict[str, dict[str, str]] = {}
    for stage in chain.stages:
        manifests = [status.manifest for status in chain.statuses(stage).values()]
        found[stage] = {manifest.fingerprint: manifest.data_version for manifest in manifests if manifest is not None}
    return found


def instants() -> list[tuple[int, float]]:
    """When to kill: once so many artifacts are committed, and after so many seconds more."""
    generator = random.Random(SEED)
    return [(generator.randrange(ARTIFACTS), generator.uniform(0, 5)) for _ in range(INSTANTS)]


def committed(settings: Settings) -> int:
    """How many artifacts there are."""
    return sum(1 for _ in Path(settings.store, layout.MANIFESTS).rglob("*.json"))


@pytest.mark.parametrize(
    ("count", "later"),
    [pytest.param(*when, marks=[] if number < QUICK else pytest.mark.slow) for number, when in enumerate(instants())],
    ids=lambda value: f"{value:.3g}",
)
def test_the_next_run_ends_as_if_nothing_had_happened(
    count: int, later: float, undisturbed: Mapping[str, Mapping[str, str]], tiny: Pipeline, landing: str, tmp_path: Path
) -> None:
    assert sum(map(len, undisturbed.values())) == ARTIFACTS
    settings = fresh_settings(tmp_path / "home", landing=landing)
    victim = start(settings)
    wait_until(lambda: committed(settings) >= count or victim.poll() is not None, what="some artifacts", seconds=300)
    time.sleep(later)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    survived = artifacts(tiny, settings)

    answer = json.loads(start(settings).communicate()[0])

    assert answer["problems"] == []
    assert versions(artifacts(tiny, settings)) == versions(undisturbed)
    for stage, whole in undisturbed.items():
        built = answer["built"].get(stage, 0)
        assert built == len(whole) - len(survived[stage]), f"{stage}: {len(survived[stage])} had been committed"
    assert unfinished(settings) == []
    chain = chain_of(stages_of(tiny), settings)
    chain.planning = True
    assert [stage.name for stage in make_plan(chain) if stage.to_do] == []
    shutil.rmtree(tmp_path, ignore_errors=True)


def unfinished(settings: Settings) -> list[str]:
    """Runs that Dagster believes to be going on."""
    going_on = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED]
    with prepare_instance(settings) as instance:
        return [run.run_id for run in instance.get_runs(filters=dg.RunsFilter(statuses=going_on))]
