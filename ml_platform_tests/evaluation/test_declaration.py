"""A model's gate that says what cannot be is refused where it is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.pipeline import Limits, MetricGate, ModelGate, Threshold
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"champion": "maybe"}, "'maybe'"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": 1}, "tolerance"),
        ({"confidence": 95}, "confidence"),
        ({"draws": 10}, "at least 100"),
        ({"slices": "carrier"}, "tuple"),
        ({"slice_rows": 1}, "at least 10"),
        ({"slice_margin": float("nan")}, "slice_margin"),
        ({"slice_bound": float("inf")}, "finite"),
        ({"calibration": 0.05}, "Limits"),
        ({"threshold": 0.5}, "Threshold"),
        ({"importance_rows": 5}, "at least 100"),
    ],
)
def test_a_value_that_cannot_be_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        ModelGate(**fields)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (ModelGate(metric="roc_auc"), "roc_auc"),
        (ModelGate(slices=("machine", "weather")), "weather"),
        (ModelGate(slices=("load",)), "load"),
    ],
)
def test_a_gate_names_metrics_and_columns_that_there_are(gate: ModelGate, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        replace(PIPELINE, model_gate=gate)


@pytest.mark.parametrize("fields", [{"precision": 0.5, "recall": 0.5}, {"precision": 1.5}, {"at": float("nan")}])
def test_a_threshold_has_one_rule_with_a_share(fields: dict[str, float]) -> None:
    with pytest.raises(DeclarationError):
        Threshold(**fields)


def test_only_of_two_classes_one_is_called_by_a_threshold() -> None:
    with pytest.raises(DeclarationError, match="multiclass"):
        replace(PIPELINE, model_gate=ModelGate(threshold=Threshold(recall=0.9)))


def test_a_gate_may_bound_what_is_measured_beside_the_metrics() -> None:
    gate = MetricGate(metric="calibration_error", at_most=0.2)
    assert replace(PIPELINE, gates=(gate,)).gates == (gate,)
    with pytest.raises(DeclarationError, match="precision"):
        replace(PIPELINE, gates=(MetricGate(metric="precision", at_least=0.2),))


def test_a_gate_may_name_categories_and_keys() -> None:
    gate = ModelGate(metric="f1_macro", slices=("machine", "reading"), calibration=Limits(warn=0.02, reject=0.2))
    assert replace(PIPELINE, model_gate=gate).model_gate.main("accuracy") == "f1_macro"
    assert ModelGate().main("accuracy") == "accuracy"
