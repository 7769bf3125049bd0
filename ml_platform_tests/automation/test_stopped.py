"""A run that a person ends with Ctrl-C says so, and is not taken up again by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

import ml_platform_tests
from ml_platform.automation.runs import ending_of
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings, child_environment
from ml_platform.stages.opening import landing_of
from ml_platform_tests.conftest import land_samples

PATIENCE = 300.0


def test_ctrl_c_is_told_from_a_failure(tiny: Pipeline, settings: Settings) -> None:
    land_samples(tiny, landing_of(settings), keep=lambda batch: batch < "lot-03")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "ml_platform.cli", "run", "tiny"],
        cwd=Path(ml_platform_tests.__file__).parent.parent,
        env=child_environment(
            ML_PLATFORM_HOME=str(settings.home),
            ML_PLATFORM_PIPELINES="ml_platform_tests.tiny_pipeline",
            ML_PLATFORM_SETTLE_SECONDS="0",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with prepare_instance(settings) as instance:
        key = dg.AssetKey(["tiny", "raw_batch"])
        deadline = time.monotonic() + PATIENCE
        while instance.get_latest_materialization_event(key) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE) != 0
        (record,) = instance.get_run_records()
    assert ending_of(record) == "stopped"
