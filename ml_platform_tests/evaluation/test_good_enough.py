"""Whether a model may be promoted by itself, by the thresholds that its pipeline declares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.pipeline import ModelGate, Promotion
from ml_platform.stages.against_champion import Beside
from ml_platform.stages.evidence import good_enough
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE


@pytest.mark.parametrize("fields", [{"by": "chance"}, {"least_gain": float("nan")}, {"least_gain": "much"}])
def test_a_policy_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        Promotion(**fields)


def test_a_gain_is_asked_for_only_where_models_are_compared() -> None:
    with pytest.raises(DeclarationError, match="not compared"):
        replace(PIPELINE, promotion=Promotion(least_gain=0.0), model_gate=ModelGate(champion="off"))


@pytest.mark.parametrize(
    ("least", "low", "against", "good"),
    [
        (None, -0.1, "a", True),
        (0.0, -0.001, "a", False),
        (0.0, 0.0, "a", True),
        (0.01, 0.009, "a", False),
        (0.01, 0.02, "a", True),
        (0.01, None, "a", False),  # nothing could be compared
        (0.01, None, "", True),  # there is no champion
    ],
)
def test_a_gain_must_surely_reach_what_is_asked(least: float, low: float, against: str, good: bool) -> None:
    pipeline = replace(PIPELINE, promotion=Promotion(least_gain=least))
    beside = Beside(message="", against=against, facts={} if low is None else {"low": low})
    assert good_enough(pipeline, beside)[0] is good


@pytest.mark.parametrize(("champion", "good"), [("keep", False), ("warn", True)])
def test_a_worse_model_is_kept_where_that_is_declared(champion: Any, good: bool) -> None:
    pipeline = replace(PIPELINE, model_gate=ModelGate(champion=champion))
    assert good_enough(pipeline, Beside(message="", worse=True, against="a"))[0] is good


@pytest.mark.parametrize(("champion", "good"), [("reject", False), ("keep", False), ("warn", True)])
@pytest.mark.parametrize("least", [None, 0.0])
def test_what_too_few_rows_say_promotes_nobody(champion: Any, good: bool, least: float | None) -> None:
    pipeline = replace(PIPELINE, model_gate=ModelGate(champion=champion), promotion=Promotion(least_gain=least))
    facts = {"low": None, "high": None, "too_few": "only 2 of 900 rows are positive"}
    beside = Beside(message="", doubtful=True, against="a", facts=facts)
    found, why = good_enough(pipeline, beside)
    assert found is (good and least is None)
    if not good:
        assert "only 2 of 900 rows are positive" in why
    assert not beside.check(warn=False).passed
    assert beside.check(warn=False).warn, "and it keeps nobody out"
