"""A threshold is the one that the rule asks for; its figures know that it was chosen on the rows they are told of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ml_platform.evaluation.declaration import Threshold
from ml_platform.evaluation.intervals import Answers, weights
from ml_platform.evaluation.threshold import NAMES, at, choose, threshold

RULES = [Threshold(), Threshold(precision=0.6), Threshold(recall=0.7)]


def answers(rows: int = 500, *, seed: int = 0, signal: float = 1.0, ties: bool = False) -> Answers:
    """Made answers; without a signal the scores say nothing."""
    random = np.random.default_rng(seed)
    odds = random.normal(-0.5, 1, rows)
    target = np.where(random.random(rows) < 1 / (1 + np.exp(-signal * odds)), "late", "early")
    scores = 1 / (1 + np.exp(-odds))
    return Answers(task="binary", target=target, scores=scores.round(2) if ties else scores, classes=("early", "late"))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_all_draws_together_are_a_loop_over_scikit_learn(rule: Threshold, ties: bool) -> None:
    given = answers(ties=ties)
    found = threshold(given, rule, draws=60)
    assert found.value is not None
    chosen, differences, fixed = [], [], []
    for drawn in weights(500, 60):
        for row in drawn:
            part = given.of(np.repeat(np.arange(500), row.astype(int)))
            own = choose(part, rule)
            assert own is not None
            there, everywhere = at(part, own), at(given, own)
            chosen.append(own)
            differences.append([there[name] - everywhere[name] for name in NAMES])
            fixed.append([at(part, found.value)[name] for name in NAMES])
    assert [found.low, found.high] == pytest.approx(np.quantile(chosen, [0.025, 0.975]).tolist())
    optimism = np.mean(differences, axis=0)
    assert list(found.optimism.values()) == pytest.approx(optimism.tolist())
    for place, name in enumerate(NAMES):
        low, high = np.quantile(np.array(fixed)[:, place], [0.025, 0.975]) - optimism[place]
        assert (found.intervals[name].low, found.intervals[name].high) == pytest.approx((low, min(high, 1)))
        assert found.figures[name] == at(given, found.value)[name]


def test_a_rule_is_kept_and_no_other_threshold_is_better() -> None:
    given = answers(3000)
    every = np.unique(given.scores).tolist()
    reached = {value: at(given, value) for value in every[:: len(every) // 300]}
    best, precise, broad = (threshold(given, rule, draws=100) for rule in RULES)
    assert best.figures["f1"] >= max(figures["f1"] for figures in reached.values())
    assert precise.figures["precision"] >= 0.6
    kept = [figures["recall"] for figures in reached.values() if figures["precision"] >= 0.6]
    assert precise.figures["recall"] >= max(kept)
    assert broad.figures["recall"] >= 0.7
    kept = [figures["precision"] for figures in reached.values() if figures["recall"] >= 0.7]
    assert broad.figures["precision"] >= max(kept)
    fixed = threshold(given, Threshold(at=0.4), draws=100)
    assert (fixed.value, fixed.low, fixed.optimism["f1"]) == (0.4, None, 0)
    assert sum(fixed.confusion.values()) == 3000
    assert fixed.confusion["true positive"] / (
        fixed.confusion["true positive"] + fixed.confusion["false positive"]
    ) == pytest.approx(fixed.figures["precision"])


def test_choosing_on_the_same_few_rows_flatters_and_that_is_taken_off() -> None:
    flattered, told, truth = [], [], []
    later = answers(50_000, seed=999, signal=0.5)
    for seed in range(20):
        found = threshold(answers(80, seed=seed, signal=0.5), Threshold(precision=0.6), draws=60)
        if found.value is None:
            continue
        flattered.append(found.figures["precision"])
        told.append(found.figures["precision"] - found.optimism["precision"])
        truth.append(at(later, found.value)["precision"])
    assert np.mean(flattered) > np.mean(truth)
    assert abs(np.mean(told) - np.mean(truth)) < abs(np.mean(flattered) - np.mean(truth))


def test_what_no_threshold_reaches_is_not_known() -> None:
    given = answers()
    given.target[given.scores.argmax()] = "early"
    found = threshold(given, Threshold(precision=0.999), draws=100)
    none = Answers(task="binary", target=np.full(500, "early"), scores=given.scores, classes=given.classes)
    broken = Answers(task="binary", target=given.target, scores=np.full(500, np.nan), classes=given.classes)
    for each in (found, threshold(none, Threshold(at=0.5)), threshold(broken, Threshold())):
        assert each.value is None
        assert all(math.isnan(value) for value in each.figures.values())
        assert each.record()["precision"] is None


def test_rows_of_the_positive_class_only_have_a_threshold() -> None:
    given = answers()
    every = Answers(task="binary", target=np.full(500, "late"), scores=given.scores, classes=given.classes)
    found = threshold(every, Threshold(), draws=100)
    assert found.value == given.scores.min()
    assert found.figures == {"precision": 1, "recall": 1, "f1": 1}
