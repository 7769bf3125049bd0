"""What the gates have said is read back from the store as it was said: of batches, and of what is not cut into them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ml_platform.gates.report import FAMILIES, HISTORY_FAMILIES
from ml_platform.pipeline import MetricGate, Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.run import run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.verdicts import batch_verdicts, stage_verdicts
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.stages.conftest import LOTS

LAST = "registered_model"


def test_every_batch_has_every_family_and_later_stages_have_their_checks(
    home: Settings, cold: RunSummary, tiny: Pipeline
) -> None:
    chain = chain_of(stages_of(tiny), home)
    verdicts = batch_verdicts(chain)
    assert [verdict.batch for verdict in verdicts] == LOTS
    assert {tuple(verdict.families) for verdict in verdicts} == {(*FAMILIES, *HISTORY_FAMILIES)}
    assert all(verdict.quiet for verdict in verdicts)
    profile = verdicts[0].profile(chain.store, "readings")
    assert profile is not None
    assert profile.rows == 60
    said = {stage.stage: {check["name"]: check["passed"] for check in stage.checks} for stage in stage_verdicts(chain)}
    assert list(said) == ["training_set", "evaluation", "registered_model"]
    assert said["training_set"]["no_leakage"]
    assert said["evaluation"]["gate_accuracy"]
    assert said["registered_model"]["gates_passed"]


def test_what_another_has_refused_since_is_not_what_was_said_here(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    other = fresh_settings(tmp_path / "other", store=home.store, landing=home.landing)
    assert not run_pipeline(replace(tiny, gates=(MetricGate(metric="accuracy", at_least=1.0),)), other).ok
    here, there = (gates_passed(tiny, settings) for settings in (home, other))
    assert (here, there) == (True, False)


def gates_passed(pipeline: Pipeline, settings: Settings) -> bool:
    """What the last check of the chain has said."""
    (registered,) = [each for each in stage_verdicts(chain_of(stages_of(pipeline), settings)) if each.stage == LAST]
    return bool({check["name"]: check["passed"] for check in registered.checks}["gates_passed"])


def test_a_machine_that_only_shares_the_store_sees_the_same(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    other = fresh_settings(home.home.parent / "another machine", store=home.store)
    here, there = (batch_verdicts(chain_of(stages_of(tiny), settings)) for settings in (home, other))
    assert [(verdict.batch, verdict.families) for verdict in there] == [
        (verdict.batch, verdict.families) for verdict in here
    ]
