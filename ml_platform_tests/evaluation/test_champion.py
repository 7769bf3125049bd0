"""A model is worse than the champion only beyond noise, on the same rows, and by more than is tolerated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ml_platform.evaluation.champion import compare
from ml_platform.evaluation.declaration import ModelGate
from ml_platform.evaluation.intervals import Answers, intervals

ROWS = 3000
RANDOM = np.random.default_rng(11)
ODDS = RANDOM.normal(-1, 1.5, ROWS)
TARGET = (RANDOM.random(ROWS) < 1 / (1 + np.exp(-ODDS))).astype(int)
NOISE = RANDOM.normal(0, 1, ROWS)
GATE = ModelGate(draws=300)


def noisy(much: float) -> Answers:
    """A model that sees the odds with so much noise."""
    return Answers(task="binary", target=TARGET, scores=1 / (1 + np.exp(-ODDS - much * NOISE)), classes=(0, 1))


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier", "accuracy"])
def test_a_model_that_is_much_worse_is_called_worse_and_its_champion_is_not(metric: str) -> None:
    found, other = compare(noisy(1.5), noisy(0), metric, GATE), compare(noisy(0), noisy(1.5), metric, GATE)
    assert found.worse
    assert found.low < found.gain < found.high < 0
    assert not other.worse
    assert other.gain == pytest.approx(-found.gain)
    assert "worse by" in str(found)
    assert f"{ROWS:,} rows" in str(found)


def test_the_same_answers_differ_by_nothing() -> None:
    found = compare(noisy(0), noisy(0), "roc_auc", GATE)
    assert (found.gain, found.low, found.high, found.worse) == (0, 0, 0, False)


def test_a_small_sure_loss_is_tolerated_up_to_the_tolerance() -> None:
    found = compare(noisy(0.38), noisy(0), "roc_auc", GATE)
    assert found.high < 0
    assert abs(found.gain) < 0.01 * found.champion
    assert not found.worse
    assert compare(noisy(0.38), noisy(0), "roc_auc", ModelGate(draws=300, tolerance=0)).worse


def test_on_few_rows_nothing_is_sure() -> None:
    few = np.arange(60)
    found = compare(noisy(0.7).of(few), noisy(0).of(few), "roc_auc", ModelGate(draws=300, tolerance=0))
    assert found.high >= 0
    assert not found.worse


def test_the_difference_is_known_better_than_either_figure() -> None:
    found, alone = compare(noisy(0.3), noisy(0), "roc_auc", GATE), intervals(noisy(0), draws=300)["roc_auc"]
    assert found.high - found.low < (alone.high - alone.low) / 2


def test_what_cannot_be_measured_is_not_called_worse() -> None:
    broken = Answers(task="binary", target=TARGET, scores=np.full(ROWS, np.nan), classes=(0, 1))
    found = compare(broken, noisy(0), "roc_auc", GATE)
    assert math.isnan(found.gain)
    assert not found.worse


def test_classes_of_another_order_or_number_do_not_mix_up_two_models() -> None:
    words = np.array(["a", "b"])[TARGET]
    share = 1 / (1 + np.exp(-ODDS))
    two = Answers(task="multiclass", target=words, scores=np.column_stack([1 - share, share]), classes=("a", "b"))
    three = np.column_stack([share, np.zeros(ROWS), 1 - share])
    found = compare(
        Answers(task="multiclass", target=words, scores=three, classes=("b", "x", "a")), two, "accuracy", GATE
    )
    assert found.gain == 0


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "brier"])
@pytest.mark.parametrize("positive", [0, 1, 3, 9])
def test_a_handful_of_positive_rows_proves_nothing(metric: str, positive: int) -> None:
    """Whatever the draws say: of three positive rows all draws say the same, and look like certainty."""
    target = np.zeros(400, dtype=int)
    target[:positive] = 1
    right, wrong = np.linspace(0.9, 0.1, 400), np.linspace(0.1, 0.9, 400)
    model, champion = (
        Answers(task="binary", target=target, scores=scores, classes=(0, 1)) for scores in (wrong, right)
    )
    for found in (compare(model, champion, metric, GATE), compare(champion, model, metric, GATE)):
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert not found.worse
        assert "too few rows to tell" in str(found)
        assert f"only {positive} of 400 rows" in found.too_few
    assert not {"roc_auc", "average_precision"} & {*intervals(model, draws=200)}


def test_ten_rows_of_each_class_are_enough() -> None:
    target = np.repeat([1, 0], [10, 390])
    given = Answers(task="binary", target=target, scores=np.linspace(0.9, 0.1, 400), classes=(0, 1))
    assert not compare(given, given, "roc_auc", GATE).too_few
