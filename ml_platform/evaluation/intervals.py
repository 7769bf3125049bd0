"""How sure a metric is: bootstrap intervals, with all draws measured together.

A draw of as many rows, with replacement, gives every row a weight: how often it was drawn (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, chapters 6 and 13: intervals are percentiles of the draws). Every metric of
`ml_platform.pipeline.METRICS` is a function of such weights: means are a product of matrices, and areas need the rows
in the order of their scores once, for all draws. With weights of one they are what `metrics.compute` gives.

Draws of few rows are alike, and tell of a certainty that there is not: of three positive rows that a model ranks first
every draw says that it always will. So where a class has hardly a row, what rests on its rows has no interval.

Rows are drawn one by one. Where the rows of a batch resemble each other (a day of bad weather), the truth is less sure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.metrics import binary_target
from ml_platform.pipeline import METRICS, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MOST_CLASSES = 20
"""A multiclass area needs an order of the rows for each class; with more classes it has no interval."""
LEAST = 10
"""Rows from which draws are made, and of each of two classes for what tells classes apart: Peduzzi et al., Journal of
Clinical Epidemiology 49, 1996, on what ten events can and fewer cannot say."""
_OF_CLASSES = frozenset({"roc_auc", "average_precision", "roc_auc_ovr", "f1_macro"})
"""Metrics that are about telling classes apart; the others are means over all rows."""
_CELLS = 1 << 16
"""Weights held at a time: as much as a processor keeps close."""
_WORK = 200_000_000
"""Weights drawn in all at most; a larger holdout has fewer draws, and needs fewer digits of them."""
_LEAST_DRAWS = 200


@dataclass(frozen=True)
class Interval:
    """Between which two figures a metric lies, in the metric's unit."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said of some rows, and what came true.

    Args: as `metrics.compute`'s.
    """

    task: Task
    target: npt.NDArray[Any]
    scores: Floats
    classes: Sequence[Any] | None = None

    def of(self, rows: npt.NDArray[Any]) -> Answers:
        """The same of some of the rows, which a mask or indices name."""
        return Answers(task=self.task, target=self.target[rows], scores=self.scores[rows], classes=self.classes)


def draws_for(rows: int, draws: int) -> int:
    """How many draws are made of so many rows, where `draws` are asked for."""
    return min(draws, max(_LEAST_DRAWS, _WORK // max(rows, 1)))


def weights(rows: int, draws: int, *, seed: int = 0) -> Iterator[Floats]:
    """How often each row was drawn, (some draws, rows) at a time. The same arguments give the same draws."""
    import numpy as np

    random = np.random.default_rng(seed)
    step = max(1, _CELLS // rows)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = random.integers(0, rows, (count, rows), dtype=np.int32 if rows < _CELLS else np.int64)
        drawn += (rows * np.arange(count, dtype=drawn.dtype))[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def intervals(
    answers: Answers,
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """Between which figures each metric lies.

    Args:
        answers: of one model.
        draws: how often the rows are drawn anew; fewer of a very large holdout (`draws_for`).
        confidence: share of the draws within an interval, 0 to 1.
        metrics: which ones; all of the task's, when None.
        seed: of the draws.

    Returns:
        By metric. One that fewer than half of the draws define has none; nor has anything of scores that are not
        finite, nor what there are `too_few` rows for.
    """
    import numpy as np

    names = tuple(METRICS[answers.task] if metrics is None else metrics)
    rows = len(answers.target)
    if rows < LEAST or not np.isfinite(answers.scores).all():
        return {}
    if too_few(answers):
        names = tuple(name for name in names if name not in _OF_CLASSES)
    measured = Measured(answers, names)
    parts = [measured.of(drawn) for drawn in weights(rows, draws_for(rows, draws), seed=seed)]
    found = {name: interval(np.concatenate([part[name] for part in parts]), confidence) for name in measured.names}
    return {name: value for name, value in found.items() if value is not None}


def too_few(answers: Answers) -> str:
    """Why these rows are too few to tell how sure a figure is, in words; "" where they are enough.

    Enough are `LEAST` rows; of two classes `LEAST` of each; of more, `LEAST` that are not of the most frequent one.
    """
    import numpy as np

    rows = len(answers.target)
    if rows < LEAST:
        return f"there are only {rows:,} rows"
    if answers.task == "regression":
        return ""
    if answers.task == "binary":
        positive = int(binary_target(answers.target, answers.classes).sum())
        fewest = min(positive, rows - positive)
        rarer = "positive" if fewest == positive else "negative"
        return f"only {fewest:,} of {rows:,} rows {'is' if fewest == 1 else 'are'} {rarer}" if fewest < LEAST else ""
    _, counts = np.unique(answers.target, return_counts=True)
    others = rows - int(counts.max())
    return f"only {others:,} of {rows:,} rows are of another class than most" if others < LEAST else ""


def figure(answers: Answers, metric: str) -> float:
    """One metric of the rows as they are, as `metrics.compute` gives it; NaN where it is undefined."""
    import numpy as np

    if not len(answers.target) or not np.isfinite(answers.scores).all():
        return math.nan
    measured = Measured(answers, [metric])
    return float(measured.of(np.ones((1, len(answers.target))))[metric][0]) if measured.names else math.nan


def interval(values: Floats, confidence: float) -> Interval | None:
    """The percentile interval of a metric's draws; None where fewer than half of them are defined."""
    import numpy as np

    known = values[np.isfinite(values)]
    if 2 * len(known) < len(values):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def loss_of_rows(answers: Answers) -> Floats:
    """What each row costs, (rows,): minus the logarithm of the probability of what came true; a regression's error.

    A class that the model does not know has the probability 0, which is kept off it as scikit-learn does.
    """
    import numpy as np

    target, scores = answers.target, answers.scores
    if answers.task == "regression":
        return np.asarray(np.abs(target.astype(np.float64) - scores))
    if answers.task == "binary":
        return _log_loss(np.where(binary_target(target, answers.classes) == 1, scores, 1 - scores))
    known = (np.unique(target) if answers.classes is None else np.asarray(answers.classes)).tolist()
    index = {name: number for number, name in enumerate(known)}
    actual = np.array([index.get(value, -1) for value in target.tolist()])
    return _log_loss(np.where(actual >= 0, scores[np.arange(len(actual)), actual], 0.0))


class Measured:
    """Some metrics of a model's answers, for any weights of their rows.

    Args:
        answers: of the model; scores are finite.
        names: metrics of its task. Those that need too many classes are left out of `names`.
    """

    def __init__(self, answers: Answers, names: Sequence[str]) -> None:
        import numpy as np

        self._areas: dict[str, _Ranked] = {}
        self._columns: dict[str, Floats] = {}
        self._classes: list[str] = []
        match answers.task:
            case "binary":
                self._binary(answers, names)
            case "multiclass":
                self._multiclass(answers, names)
            case "regression":
                self._regression(answers)
        self._stacked = np.column_stack(list(self._columns.values()))
        self.names = tuple(name for name in names if name != "roc_auc_ovr" or self._areas)

    def of(self, drawn: Floats) -> dict[str, Floats]:
        """Each metric for each draw, by name, of shape (draws,); `drawn` are weights of shape (draws, rows)."""
        import numpy as np

        total = drawn.sum(axis=1)
        sums = dict(zip(self._columns, (drawn @ self._stacked).T, strict=True))
        found = {name: sums[name] / total for name in self.names if name in sums}
        areas = {key: area.measure(drawn, "average_precision" in self.names) for key, area in self._areas.items()}
        if "" in areas:
            found |= {name: value for name, value in areas[""].items() if name in self.names}
        if "roc_auc_ovr" in self.names:
            found["roc_auc_ovr"] = np.mean([area["roc_auc"] for area in areas.values()], axis=0)
        if "f1_macro" in self.names:
            found["f1_macro"] = self._f1(sums)
        if "rmse" in self.names:
            found["rmse"] = np.sqrt(sums["squared"] / total)
        if "r2" in self.names:
            spread = sums["square"] - sums["centred"] ** 2 / total
            with np.errstate(divide="ignore", invalid="ignore"):
                found["r2"] = np.where(spread > 0, 1 - sums["squared"] / spread, math.nan)
        return found

    def _binary(self, answers: Answers, names: Sequence[str]) -> None:
        import numpy as np

        truth, scores = binary_target(answers.target, answers.classes), answers.scores
        self._columns["log_loss"] = _log_loss(np.where(truth == 1, scores, 1 - scores))
        self._columns["brier"] = (scores - truth) ** 2
        self._columns["accuracy"] = ((scores >= 0.5) == (truth == 1)).astype(np.float64)
        if {"roc_auc", "average_precision"} & {*names}:
            self._areas[""] = _Ranked(truth == 1, scores)

    def _multiclass(self, answers: Answers, names: Sequence[str]) -> None:
        import numpy as np

        scores = answers.scores
        known = np.unique(answers.target) if answers.classes is None else np.asarray(answers.classes)
        index = {name: number for number, name in enumerate(known.tolist())}
        actual = np.array([index.get(value, -1) for value in answers.target.tolist()])
        predicted = scores.argmax(axis=1)
        self._columns["accuracy"] = (actual == predicted).astype(np.float64)
        of_truth = np.where(actual >= 0, scores[np.arange(len(actual)), actual], math.nan)
        self._columns["log_loss"] = _log_loss(of_truth)  # NaN throughout where a class is unknown, as in `compute`
        if "f1_macro" in names:
            for number in np.unique(np.concatenate([actual, predicted])).tolist():
                self._classes.append(str(number))
                self._columns[f"hit {number}"] = ((actual == number) & (predicted == number)).astype(np.float64)
                self._columns[f"all {number}"] = (actual == number).astype(np.float64) + (predicted == number)
        if "roc_auc_ovr" in names and 2 <= len(known) <= MOST_CLASSES and (actual >= 0).all():
            shares = scores / scores.sum(axis=1, keepdims=True)
            for number in range(len(known)) if len(known) > 2 else (1,):
                self._areas[f"class {number}"] = _Ranked(actual == number, shares[:, number])

    def _regression(self, answers: Answers) -> None:
        import numpy as np

        truth = answers.target.astype(np.float64)
        wrong, centred = truth - answers.scores, truth - truth.mean()
        self._columns = {"mae": np.abs(wrong), "squared": wrong**2, "square": centred**2, "centred": centred}

    def _f1(self, sums: dict[str, Floats]) -> Floats:
        """The mean of 2 hits / (rows of the class + predictions of it) over the classes that a draw has either of."""
        import numpy as np

        every = np.stack([sums[f"all {number}"] for number in self._classes])
        hits = np.stack([sums[f"hit {number}"] for number in self._classes])
        return np.sum(2 * hits / np.maximum(every, 1), axis=0) / np.sum(every > 0, axis=0)  # type: ignore[no-any-return]


class _Ranked:
    """Rows in ascending order of their scores, equal scores together.

    The area under the ROC curve is the share of (positive, negative) pairs in the right order, a tie counting half
    (Hanley and McNeil, Radiology 143, 1982); average precision is scikit-learn's sum over thresholds.
    """

    def __init__(self, positive: npt.NDArray[np.bool_], scores: Floats) -> None:
        import numpy as np

        self._order = np.argsort(scores, kind="stable")
        ordered, positive = scores[self._order], positive[self._order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._starts = None if len(starts) == len(ordered) else starts
        self._positive = positive.astype(np.float64)
        # Only thresholds with a positive row add anything, most often a small part of all.
        self._places = np.flatnonzero(positive if self._starts is None else np.add.reduceat(positive, starts))

    def measure(self, drawn: Floats, precision: bool) -> dict[str, Floats]:
        """`roc_auc`, and `average_precision` where it is asked for, for each draw; NaN where one class is missing."""
        import numpy as np

        every = np.take(drawn, self._order, axis=1)
        positives = every
        if self._starts is not None:
            positives = np.add.reduceat(every * self._positive, self._starts, axis=1)
            every = np.add.reduceat(every, self._starts, axis=1)
        below = np.cumsum(every, axis=1)
        total = below[:, -1].copy()
        every, positives, below = (np.take(part, self._places, axis=1) for part in (every, positives, below))
        hits = np.cumsum(positives, axis=1)
        good = hits[:, -1].copy() if hits.shape[1] else np.zeros(len(drawn))
        pairs = np.einsum("ij,ij->i", positives, below - hits)
        if self._starts is not None:
            pairs -= np.einsum("ij,ij->i", positives, every - positives) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            area = pairs / (good * (total - good))
            found = {"roc_auc": np.where(good * (total - good) > 0, area, math.nan)}
            if precision:
                # From the highest score down to each threshold: how many positive rows among how many.
                hits = good[:, None] - hits + positives
                share = hits / np.maximum(total[:, None] - below + every, 1)
                found["average_precision"] = np.einsum("ij,ij->i", positives, share) / good
        return found


def _log_loss(of_truth: Floats) -> Floats:
    """Minus the logarithm of the probability of what came true, which is kept off 0 as scikit-learn does."""
    import numpy as np

    least = np.finfo(np.float64).eps
    return -np.log(np.clip(of_truth, least, 1 - least))
