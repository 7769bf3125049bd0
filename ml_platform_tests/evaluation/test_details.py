"""Each class of many, and the errors of a regression, measured as scikit-learn and numpy measure them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from ml_platform.evaluation.declaration import Threshold
from ml_platform.evaluation.details import QUANTILES, by_class, error_intervals, error_quantiles
from ml_platform.evaluation.figures import figures
from ml_platform.evaluation.intervals import Answers, weights
from ml_platform.pipeline import METRICS, MORE_METRICS
from ml_platform_tests.evaluation.test_intervals import answers

ROWS = 400


def test_each_class_is_a_loop_over_scikit_learn() -> None:
    given = answers("multiclass", rows=ROWS)
    found = {row["class"]: row for row in by_class(given, draws=120)}
    assert given.classes is not None
    said = np.asarray(given.classes)[given.scores.argmax(axis=1)]
    whole = precision_recall_fscore_support(given.target, said, labels=given.classes)
    drawn = []
    for part in weights(ROWS, 120):
        for row in part:
            rows = np.repeat(np.arange(ROWS), row.astype(int))
            drawn.append(precision_recall_fscore_support(given.target[rows], said[rows], labels=given.classes)[:3])
    for place, name in enumerate(given.classes):
        assert found[name]["rows"] == whole[3][place]
        assert found[name]["called"] == (said == name).sum()
        for kind, figure in enumerate(("precision", "recall", "f1")):
            assert found[name][figure] == pytest.approx(whole[kind][place])
            low, high = np.quantile(np.array(drawn)[:, kind, place], [0.025, 0.975])
            assert (found[name][f"{figure}_low"], found[name][f"{figure}_high"]) == pytest.approx((low, high))


def test_a_class_that_nobody_is_of_or_is_said_to_be_of_is_not_known() -> None:
    given = answers("multiclass", rows=ROWS)
    scores = np.column_stack([given.scores, np.zeros(ROWS)])
    more = Answers(task="multiclass", target=given.target, scores=scores, classes=("a", "b", "c", "never"))
    last = by_class(more, draws=100)[-1]
    assert (last["class"], last["rows"], last["called"]) == ("never", 0, 0)
    assert last["precision"] is last["recall"] is last["f1_low"] is None
    stranger = Answers(task="multiclass", target=np.full(ROWS, "stranger"), scores=given.scores, classes=given.classes)
    assert [row["recall"] for row in by_class(stranger, draws=100)] == [None] * 3
    broken = Answers(task="multiclass", target=given.target, scores=given.scores * np.nan, classes=given.classes)
    assert by_class(broken) == []


def test_error_quantiles_and_their_draws_are_numpys() -> None:
    given = answers("regression", rows=ROWS)
    errors = np.abs(given.target - given.scores)
    found, around = error_quantiles(given), error_intervals(given, draws=120)
    for name, share in QUANTILES.items():
        assert (errors <= found[name]).mean() >= share
        assert (errors < found[name]).mean() < share
        drawn = [
            np.quantile(np.repeat(errors, row.astype(int)), share, method="inverted_cdf")
            for part in weights(ROWS, 120)
            for row in part
        ]
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert (around[name].low, around[name].high) == pytest.approx((low, high))
    broken = Answers(task="regression", target=given.target, scores=np.full(ROWS, np.inf))
    assert all(math.isnan(value) for value in error_quantiles(broken).values())
    assert error_intervals(broken) == {}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_figure_of_a_task_is_told_in_order_and_none_is_made_up(task: str) -> None:
    given = answers(task)
    found = figures(given, Threshold())
    assert tuple(found) == (*METRICS[given.task], *MORE_METRICS[given.task])
    assert not any(math.isnan(value) for value in found.values())
    broken = Answers(task=given.task, target=given.target, scores=given.scores * np.nan, classes=given.classes)
    assert all(math.isnan(value) for value in figures(broken, Threshold()).values())
