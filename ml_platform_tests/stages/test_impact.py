"""A batch is found bad: what was made of it is named, models and aliases included."""

from __future__ import annotations

import json

import pytest

from ml_platform.errors import RefusedError
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain
from ml_platform.stages.impact import Impact, impact_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.summary import RunSummary
from ml_platform_tests.stages.conftest import LOTS, WHOLE_STAGES


@pytest.fixture
def chain(tiny: Pipeline, home: Settings, cold: RunSummary) -> Chain:
    assert cold.ok
    return chain_of(stages_of(tiny), home)


def batches(impact: Impact, stage: str) -> set[str]:
    return {each.manifest.batch for each in impact.artifacts[stage]}


def test_a_batch_reaches_its_own_artifacts_all_below_the_training_set_and_the_champion(chain: Chain) -> None:
    found = impact_of(chain, LOTS[0])

    assert batches(found, "raw_batch") == batches(found, "validated_batch") == {LOTS[0]}
    assert {*WHOLE_STAGES} <= found.artifacts.keys()
    assert all(any(each.published for each in reached) for reached in found.artifacts.values())
    assert [version.version for version in found.versions if version.aliases == ("champion",)] == ["1"]


def test_a_batch_that_others_look_back_on_reaches_their_features(chain: Chain) -> None:
    assert batches(impact_of(chain, LOTS[1]), "features") == {LOTS[1], LOTS[2]}


def test_a_batch_that_was_never_taken_is_refused(chain: Chain) -> None:
    with pytest.raises(RefusedError, match="never taken"):
        impact_of(chain, "lot-99")


def test_the_json_names_models_with_their_aliases(chain: Chain) -> None:
    told = json.loads(json.dumps(impact_of(chain, LOTS[0]).to_dict()))

    assert {"name": "tiny", "version": "1", "aliases": ["champion"]} in told["versions"]
    assert told["artifacts"]["validated_batch"][0]["verdict"] == "accepted"
