"""Wherever Dagster's daemon is killed while it takes up new data, there is one run for it in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

import ml_platform_tests
from ml_platform.instance import prepare_instance
from ml_platform.settings import Settings, child_environment
from ml_platform.stages.opening import landing_of
from ml_platform_tests.automation.daemon_pipeline import PIPELINE

pytestmark = pytest.mark.slow


def tick(settings: Settings, *points: str) -> int:
    """One evaluation of all sensors, in a process of its own. Returns its exit code."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ml_platform_tests.automation.one_tick", *points],
        cwd=Path(ml_platform_tests.__file__).parent.parent,
        env=child_environment(
            ML_PLATFORM_HOME=str(settings.home),
            ML_PLATFORM_PIPELINES="ml_platform_tests.automation.daemon_pipeline",
            ML_PLATFORM_SETTLE_SECONDS="0",
        ),
        check=False,
        timeout=300,
    ).returncode


def land(settings: Settings, batch: str) -> None:
    path = Path(landing_of(settings).put(PIPELINE, "readings", batch, f"batch\n{batch}\n".encode(), "csv"))
    os.utime(path, (time.time() - 600,) * 2)


@pytest.mark.parametrize("point", ["TICK_CREATED", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED"])
def test_a_daemon_that_is_killed_at_any_step_makes_one_run_of_what_landed(settings: Settings, point: str) -> None:
    land(settings, "lot-01")
    land(settings, "lot-02")
    assert tick(settings, point) == -signal.SIGKILL
    land(settings, "lot-03")
    assert tick(settings) == 0
    time.sleep(2)  # the sensor's own pace
    assert tick(settings) == 0
    with prepare_instance(settings) as instance:
        runs = instance.get_runs(filters=dg.RunsFilter(job_name="tiny_chain"))
        asked = [batch for run in runs for batch in run.run_config["batches"]]
        assert len(runs) == 1, "what landed later waits for that run to end"
        assert runs[0].status == dg.DagsterRunStatus.QUEUED
        expected = ["lot-01", "lot-02"] if point != "TICK_CREATED" else ["lot-01", "lot-02", "lot-03"]
        assert asked == expected
        assert set(instance.get_dynamic_partitions("tiny_batches")) == set(expected)
