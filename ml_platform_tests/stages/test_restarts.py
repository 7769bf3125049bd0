"""A training job that is preempted inside a run of the chain: the run goes on, and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from ml_platform.instance import prepare_instance
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform_tests.launch.conftest import pids, wait_until
from ml_platform_tests.stages.conftest import bodies

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.summary import RunSummary


def test_a_run_survives_that_its_training_job_is_killed(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    longer = replace(tiny, recipe=replace(tiny.recipe, epochs=13))

    def kill() -> None:
        wait_until(lambda: pids("-m ml_platform.training.job", home.home), what="a rank")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids("-m ml_platform.training.job", home.home)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run_pipeline(longer, home, Request(select=["trained_model"]))
    killer.join()
    assert not summary.problems
    assert bodies(summary) == {"trained_model": 1}
    chain = chain_of(stages_of(longer), home)
    manifest = chain.settled("trained_model", [""])[""]
    assert not isinstance(manifest, str)
    assert manifest.facts["restarts"] == 1
    with prepare_instance(home) as instance:
        log = [event.user_message for event in instance.all_logs(summary.run_id)]
    assert any("lost" in line and "SIGKILL" in line for line in log)
    assert any("restart 1 of 3" in line for line in log)
    assert bodies(run_pipeline(tiny, home)) == {}, "back at the declared recipe, everything is known"
