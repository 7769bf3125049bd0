"""Metrics have the names that gates use, and never look better than the rows allow."""

import math

import numpy as np
import pytest

from ml_platform.errors import RefusedError
from ml_platform.evaluation import sanity
from ml_platform.evaluation.metrics import compute
from ml_platform.pipeline import METRICS, MetricGate

RANDOM = np.random.default_rng(7)
TARGET = RANDOM.integers(0, 2, 500)
SCORES = np.clip(0.5 + 0.3 * (TARGET - 0.5) + 0.2 * RANDOM.standard_normal(500), 0, 1)
WORDS = np.array(["ant", "bee", "cow"])[RANDOM.integers(0, 3, 300)]
SHARES = RANDOM.dirichlet([1, 1, 1], 300).astype(np.float32)


def test_names_are_those_that_gates_may_bound():
    number = RANDOM.standard_normal(50)
    found = {
        "binary": compute("binary", TARGET, SCORES),
        "multiclass": compute("multiclass", WORDS, SHARES, ["ant", "bee", "cow"]),
        "regression": compute("regression", number, number + 0.1),
    }
    for task, names in METRICS.items():
        assert tuple(found[task]) == names
        assert all(math.isfinite(value) for value in found[task].values())
    assert found["regression"]["rmse"] == pytest.approx(0.1)


def test_a_better_model_has_better_metrics():
    good, bad = compute("binary", TARGET, SCORES), compute("binary", TARGET, 1 - SCORES)
    assert good["roc_auc"] == pytest.approx(1 - bad["roc_auc"])
    assert good["log_loss"] < bad["log_loss"]
    assert good["brier"] < bad["brier"]


def test_labels_of_any_type():
    words = np.where(TARGET == 1, "yes", "no")
    assert compute("binary", words, SCORES, ("no", "yes")) == compute("binary", TARGET, SCORES)
    assert compute("binary", TARGET.astype(bool), SCORES) == compute("binary", TARGET, SCORES)


@pytest.mark.parametrize("label", [0, 1])
def test_a_holdout_of_one_class_passes_no_gate_on_the_area(label):
    metrics = compute("binary", np.full(20, label), SCORES[:20])
    assert math.isnan(metrics["roc_auc"])
    assert not MetricGate(metric="roc_auc", at_least=0.0).passes(metrics["roc_auc"])
    assert math.isfinite(metrics["log_loss"])


def test_scores_that_are_not_finite_pass_no_gate():
    scores = SCORES.copy()
    scores[3] = np.nan
    metrics = compute("binary", TARGET, scores)
    assert all(math.isnan(value) for value in metrics.values())
    assert not MetricGate(metric="log_loss", at_most=1e9).passes(metrics["log_loss"])


def test_a_class_the_model_never_saw_counts_as_wrong():
    sure = np.tile([1.0, 0.0, 0.0], (4, 1))
    metrics = compute("multiclass", np.array(["ant", "ant", "ant", "dog"]), sure, ["ant", "bee", "cow"])
    assert metrics["accuracy"] == 0.75
    assert math.isnan(metrics["log_loss"])
    assert math.isnan(metrics["roc_auc_ovr"])


def test_nothing_to_evaluate_on_says_so():
    with pytest.raises(RefusedError, match="0 rows with a label"):
        compute("binary", np.array([]), np.array([]))


def test_a_third_label_in_a_binary_task_is_refused_by_name():
    with pytest.raises(RefusedError, match="'maybe'"):
        compute("binary", np.array(["no", "yes", "maybe"]), SCORES[:3], ("no", "yes"))


def test_scores_of_another_length_are_refused():
    with pytest.raises(RefusedError, match="do not fit"):
        compute("binary", TARGET, SCORES[:-1])


@pytest.mark.parametrize(
    ("task", "target", "scores", "classes", "passed", "reason"),
    [
        ("binary", TARGET, SCORES, None, True, "differ"),
        ("binary", TARGET, np.full(500, 0.3), None, False, "same of every row: 0.3"),
        ("binary", TARGET, 0.01 * SCORES, None, False, "one class"),
        ("binary", TARGET, np.where(TARGET == 1, np.inf, 0), None, False, "not finite"),
        # Rare positives: no score reaches one half, and the model is useful all the same.
        ("binary", (SCORES > 0.9).astype(int), SCORES**8, None, True, "differ"),
        ("multiclass", WORDS, SHARES, ("ant", "bee", "cow"), True, "differ"),
        ("multiclass", WORDS, np.add(SHARES, [0, 1, 0]), ("ant", "bee", "cow"), False, "'bee'"),
        ("regression", SCORES, 2 * SCORES, None, True, "differ"),
        ("regression", 1e9 * SCORES, 7 + 1e-9 * SCORES, None, False, "same of every row: 7"),
    ],
)
def test_predictions_that_do_not_distinguish_rows_are_caught(task, target, scores, classes, passed, reason):
    report = sanity.check(task, target, scores, classes)
    assert report.passed is passed
    assert reason in report.reason
