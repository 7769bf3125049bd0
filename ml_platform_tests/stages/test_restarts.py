"""A training job that is killed inside a run of the chain: it goes on, in this run or the next, and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ml_platform.instance import prepare_instance
from ml_platform.provenance.declared import as_recorded
from ml_platform.provenance.record import collect
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
    shown: list[str] = []
    summary = run_pipeline(
        longer, home, Request(select=["trained_model"]), on_progress=lambda event: shown.append(event.message)
    )
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
    assert any("restart 1 of 3" in line for line in shown), "whoever waits for the run sees it too"
    assert [line for line in shown if line.startswith("epoch")][-1].startswith("epoch 13/13: loss")
    assert bodies(run_pipeline(tiny, home)) == {}, "back at the declared recipe, everything is known"


@pytest.mark.slow
def test_a_model_that_went_on_with_fewer_processes_says_so(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    recipe = replace(tiny.recipe, elastic=True, epochs=400, restarts=0, checkpoint_seconds=0.05)
    two, one = (replace(tiny, recipe=replace(recipe, processes=count)) for count in (2, 1))
    models = Request(select=["trained_model", "evaluation"])

    def kill() -> None:
        wait_until(lambda: any(home.home.glob("**/.model.checkpoints/*-*/manifest.json")), what="a checkpoint")
        for pid in pids("-m ml_platform.training.job", home.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert not run_pipeline(two, home, models).ok
    killer.join()
    assert run_pipeline(one, home, models).ok
    chain = chain_of(stages_of(one), home)
    trained, evaluation, training_set = map(chain.published_artifact, ("trained_model", "evaluation", "training_set"))
    assert trained
    assert evaluation
    assert training_set
    (resumed,) = trained.facts["history"]["resumed_on"]
    assert (resumed["before"]["processes"], resumed["after"]["processes"]) == (2, 1)
    assert "processes 2, then 1" in stages_of(one)["trained_model"].metadata(chain, trained)["went on"]
    record = collect(chain.store, one, trained=trained, evaluation=evaluation, training_set=training_set)
    assert record["training"]["resumed_on"] == [resumed]
    assert as_recorded(two, record).recipe == one.recipe, "built once more as it was built in the end"
    assert bodies(run_pipeline(two, home, models)) == {}, "how many there are is no part of what the model is"
