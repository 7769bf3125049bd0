"""What the gates have said is read back from the store as it was said: of batches, and of what is not cut into them."""

from __future__ import annotations

from ml_platform.gates.report import FAMILIES, HISTORY_FAMILIES
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.verdicts import batch_verdicts, stage_verdicts
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.stages.conftest import LOTS


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


def test_a_machine_that_only_shares_the_store_sees_the_same(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    other = fresh_settings(home.home.parent / "another machine", store=home.store)
    here, there = (batch_verdicts(chain_of(stages_of(tiny), settings)) for settings in (home, other))
    assert [(verdict.batch, verdict.families) for verdict in there] == [
        (verdict.batch, verdict.families) for verdict in here
    ]
