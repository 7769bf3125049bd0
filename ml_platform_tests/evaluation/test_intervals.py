"""Intervals hold the truth as often as they say, and measure what scikit-learn measures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_platform.evaluation.calibration import calibration
from ml_platform.evaluation.intervals import Answers, Measured, draws_for, figure, intervals, weights
from ml_platform.evaluation.metrics import compute
from ml_platform.pipeline import METRICS

ROWS = 600


def answers(task: str, *, rows: int = ROWS, seed: int = 0, ties: bool = False) -> Answers:
    """Made answers of a model that is right more often than not."""
    random = np.random.default_rng(seed)
    if task == "binary":
        odds = random.normal(-1, 1, rows)
        scores = 1 / (1 + np.exp(-odds))
        target: Any = np.where(random.random(rows) < scores, "late", "early")
        scores = scores.round(2) if ties else scores
        return Answers(task="binary", target=target, scores=scores, classes=("early", "late"))
    if task == "multiclass":
        shares = random.dirichlet([1, 1, 1], rows)
        target = np.array(["a", "b", "c"])[(shares.cumsum(axis=1) > random.random((rows, 1))).argmax(axis=1)]
        return Answers(task="multiclass", target=target, scores=shares, classes=("a", "b", "c"))
    target = random.normal(100, 10, rows)
    return Answers(task="regression", target=target, scores=target + random.normal(0, 3, rows))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("ties", [False, True])
def test_a_draw_measures_what_scikit_learn_measures_of_the_drawn_rows(task: str, ties: bool) -> None:
    given = answers(task, ties=ties)
    (drawn,) = weights(ROWS, 3, seed=5)
    found = Measured(given, METRICS[given.task]).of(drawn)
    for number, row in enumerate(drawn):
        rows = np.repeat(np.arange(ROWS), row.astype(int))
        said = compute(given.task, given.target[rows], given.scores[rows], given.classes)
        assert {name: values[number] for name, values in found.items()} == pytest.approx(said, rel=1e-9)
    whole = compute(given.task, given.target, given.scores, given.classes)
    assert {name: figure(given, name) for name in whole} == pytest.approx(whole, rel=1e-9)


def test_every_draw_has_as_many_rows_and_the_same_seed_the_same_draws() -> None:
    one, other = (np.concatenate(list(weights(50, 300, seed=1))) for _ in range(2))
    assert one.shape == (300, 50)
    assert (one.sum(axis=1) == 50).all()
    assert (one == other).all()
    assert (one != np.concatenate(list(weights(50, 300, seed=2)))).any()


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = figure(answers("binary", rows=200_000, seed=10_000), "roc_auc")
    held = {"roc_auc": 0, "brier": 0}
    brier = figure(answers("binary", rows=200_000, seed=10_000), "brier")
    for seed in range(1, 101):
        found = intervals(answers("binary", seed=seed), draws=200, metrics=["roc_auc", "brier"], seed=seed)
        held["roc_auc"] += found["roc_auc"].low <= truth <= found["roc_auc"].high
        held["brier"] += found["brier"].low <= brier <= found["brier"].high
    assert all(87 <= count <= 100 for count in held.values()), held


def test_more_rows_make_an_interval_narrower() -> None:
    few, many = (intervals(answers("regression", rows=rows), draws=200)["mae"] for rows in (400, 6400))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.4)


def test_what_is_not_defined_has_no_interval() -> None:
    one = answers("binary")
    same = Answers(task="binary", target=np.full(ROWS, "early"), scores=one.scores, classes=one.classes)
    found = intervals(same, draws=100)
    assert "roc_auc" not in found
    assert "brier" in found
    broken = Answers(task="binary", target=one.target, scores=np.full(ROWS, np.nan), classes=one.classes)
    assert intervals(broken, draws=100) == {}


def test_a_very_large_holdout_is_drawn_less_often() -> None:
    assert draws_for(30_000, 1000) == 1000
    assert draws_for(100_000_000, 1000) == 200


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_that_come_true_are_calibrated_and_others_are_not(task: str) -> None:
    honest = answers(task, rows=8000)
    good = calibration(honest, draws=200)
    assert good is not None
    assert good.low < 0.01
    assert sum(row["rows"] for row in good.bins) == 8000
    sharper = honest.scores**3
    sharper = sharper / sharper.sum(axis=1, keepdims=True) if task == "multiclass" else sharper
    bad = calibration(
        Answers(task=honest.task, target=honest.target, scores=sharper, classes=honest.classes), draws=200
    )
    assert bad is not None
    assert 0.05 < bad.low < bad.error < bad.high
    assert calibration(answers("regression")) is None


def test_the_order_of_rows_with_equal_probabilities_makes_no_difference() -> None:
    given = answers("binary", ties=True)
    mixed = given.of(np.random.default_rng(0).permutation(ROWS))
    one, other = calibration(given, draws=100), calibration(mixed, draws=100)
    assert one is not None
    assert other is not None
    assert one.error == pytest.approx(other.error)
    assert [row["rows"] for row in one.bins] == [row["rows"] for row in other.bins]
    assert [row["came true"] for row in one.bins] == pytest.approx([row["came true"] for row in other.bins])
