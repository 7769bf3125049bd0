"""From which probability on a row counts as positive, and how good the model is when somebody acts on that.

The threshold is chosen by a declared rule on the very rows on which its precision and recall are told, which flatters
them. By how much is found out as Efron does it (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section
17.6): each draw of the rows chooses a threshold of its own by the same rule, and what that threshold reaches on the
draw, less what it reaches on all rows, is the optimism. Intervals are those of the threshold as it stands, over the
draws, moved by the mean optimism; the threshold's own interval is where the draws put theirs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.declaration import Threshold
from ml_platform.evaluation.intervals import Answers, Interval, draws_for, interval, too_few, weights
from ml_platform.evaluation.metrics import binary_target

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

NAMES = ("precision", "recall", "f1")
CHOOSING = 200
"""Draws that choose a threshold of their own: enough for a mean and for two ends."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A threshold, and what it is worth.

    Args:
        rule: by which it was chosen, in words.
        value: a probability: rows at or above it count as positive. None where no threshold keeps the rule.
        low, high: between which thresholds the draws chose theirs; None where that is not known.
        figures: `precision`, `recall` and `f1` on the rows it was chosen on; NaN where they are not defined.
        intervals: of these, the optimism taken off.
        optimism: how much choosing on the same rows flatters each of them.
        confusion: rows by what came true and what was called: `true negative`, `false positive`, and so on.
    """

    rule: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    figures: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, math.nan))
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    optimism: Mapping[str, float] = field(default_factory=dict)
    confusion: Mapping[str, int] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As plain JSON, without the intervals, which stand among those of all metrics."""
        return {
            "rule": self.rule,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            **{name: None if math.isnan(value) else value for name, value in self.figures.items()},
            "optimism": dict(self.optimism),
            "confusion": dict(self.confusion),
            "chosen_on": "the held-out rows",
        }


def choose(answers: Answers, rule: Threshold) -> float | None:
    """The threshold that a rule asks for on these rows, the highest of equally good ones.

    None where scores are not finite, no row is positive, or no threshold keeps the rule.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_curve

    truth = binary_target(answers.target, answers.classes)
    if not np.isfinite(answers.scores).all() or not truth.any():
        return None
    if rule.at is not None:
        return rule.at
    precision, recall, thresholds = precision_recall_curve(truth, answers.scores)
    worth = _worth(rule, precision[:-1], recall[:-1])
    best = len(worth) - 1 - int(np.argmax(worth[::-1]))
    return float(thresholds[best]) if np.isfinite(worth[best]) else None


def at(answers: Answers, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 where rows at or above a threshold count as positive; NaN where undefined."""
    from sklearn.metrics import precision_recall_fscore_support

    truth, called = binary_target(answers.target, answers.classes), answers.scores >= threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined is NaN, which says it
        found = precision_recall_fscore_support(truth, called, average="binary", zero_division=math.nan)
    return {name: float(value) for name, value in zip(NAMES, found[:3], strict=True)}


def threshold(
    answers: Answers, rule: Threshold, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Chosen:
    """Choose a threshold for a model of two classes, and say how good it is there.

    Args:
        answers: of a binary model.
        rule: how to choose.
        draws, confidence, seed: as `intervals.intervals`'s.
    """
    import numpy as np
    from sklearn.metrics import confusion_matrix

    value = choose(answers, rule)
    if value is None:
        return Chosen(rule=str(rule))
    truth, called = binary_target(answers.target, answers.classes), answers.scores >= value
    cells = confusion_matrix(truth, called, labels=[0, 1]).ravel().tolist()
    names = ("true negative", "false positive", "false negative", "true positive")
    curve = _Curve(truth == 1, answers.scores)
    everywhere = curve.counts(np.ones((1, len(truth))))
    stacked = np.column_stack([truth * called, called, truth]).astype(np.float64)
    fixed: list[Floats] = []
    chosen: list[Floats] = []
    flattered: list[Floats] = []
    for drawn in weights(len(truth), draws_for(len(truth), draws), seed=seed):
        fixed.append(np.stack(_reached(*(drawn @ stacked).T)))
        if rule.at is None and sum(len(part) for part in chosen) < CHOOSING:
            hits, said, good = curve.counts(drawn)
            best = _best(rule, hits, said, good)
            own = [np.take_along_axis(part, best[:, None], axis=1)[:, 0] for part in (hits, said)]
            there = _reached(own[0], own[1], good)
            of_all = _reached(everywhere[0][0, best], everywhere[1][0, best], everywhere[2])
            none = best < 0
            chosen.append(np.where(none, math.nan, curve.thresholds[best]))
            flattered.append(np.where(none, math.nan, np.stack(there) - np.stack(of_all)))
    reached = np.concatenate(fixed, axis=1)
    optimism = _means(np.concatenate(flattered, axis=1)) if flattered else dict.fromkeys(NAMES, 0.0)
    around = interval(np.concatenate(chosen), confidence) if chosen else None
    found = {name: interval(values, confidence) for name, values in zip(NAMES, reached, strict=True)}
    if too_few(answers):
        around, found = None, {}
    return Chosen(
        rule=str(rule),
        value=value,
        low=around.low if around else None,
        high=around.high if around else None,
        figures=at(answers, value),
        intervals={name: _moved(part, optimism[name]) for name, part in found.items() if part is not None},
        optimism=optimism,
        confusion=dict(zip(names, cells, strict=True)),
    )


class _Curve:
    """What each score of a positive row would reach as a threshold, for any weights of the rows.

    Args:
        positive: (rows,) whether a row is, which one is at least.
        scores: (rows,).
    """

    def __init__(self, positive: npt.NDArray[np.bool_], scores: Floats) -> None:
        import numpy as np

        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        right = positive[self._order]
        # Between two positive rows the higher threshold finds as many and calls fewer: no rule takes the lower.
        self._from = first[np.add.reduceat(right, first) > 0]
        self._hits = np.flatnonzero(right)
        self._hits_from = np.searchsorted(self._hits, self._from)
        self.thresholds = ordered[self._from]

    def counts(self, drawn: Floats) -> tuple[Floats, Floats, Floats]:
        """Positive rows and all rows at or above each threshold, (draws, thresholds); and positive rows, (draws,)."""
        import numpy as np

        every = np.take(drawn, self._order, axis=1)
        hits = _from_above(np.take(every, self._hits, axis=1))
        good = hits[:, 0].copy()
        if len(self._from) < len(self._hits):
            hits = np.take(hits, self._hits_from, axis=1)
        return hits, np.take(_from_above(every), self._from, axis=1), good


def _from_above(values: Floats) -> Floats:
    """For each column the sum of it and of all after it; shape as it was."""
    import numpy as np

    below = np.cumsum(values, axis=1)
    return below[:, -1:] - below + values


def _reached(hits: Floats, said: Floats, good: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 from counts, of any one shape; NaN where one is not defined."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return hits / said, hits / good, 2 * hits / (said + good)


def _worth(rule: Threshold, precision: Floats, recall: Floats) -> Floats:
    """What a rule looks for is where this is highest; minus infinity where the rule is not kept."""
    import numpy as np

    if rule.precision is not None:
        worth, kept = recall, precision >= rule.precision
    elif rule.recall is not None:
        worth, kept = precision, recall >= rule.recall
    else:
        worth, kept = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny), recall > 0
    return np.where(kept, np.nan_to_num(worth), -math.inf)


def _best(rule: Threshold, hits: Floats, said: Floats, good: Floats) -> npt.NDArray[np.int64]:
    """Which threshold each draw chooses, the highest of equals; -1 where none keeps the rule. Shape (draws,)."""
    import numpy as np

    if rule.precision is None and rule.recall is None:  # the same, with fewer steps: most draws are for this rule
        worth = hits / (said + good[:, None])
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            worth = _worth(rule, hits / said, hits / good[:, None])
    best = worth.shape[1] - 1 - np.argmax(worth[:, ::-1], axis=1)
    reached = np.take_along_axis(worth, best[:, None], axis=1)[:, 0]
    return np.where(np.isfinite(reached) & (good > 0), best, -1)


def _means(values: Floats) -> dict[str, float]:
    """The mean of each name's draws, of those that are defined; 0 without any."""
    import numpy as np

    known = [row[np.isfinite(row)] for row in values]
    return {name: float(row.mean()) if len(row) else 0.0 for name, row in zip(NAMES, known, strict=True)}


def _moved(part: Interval, by: float) -> Interval:
    """An interval of a share, moved down."""
    low, high = (min(1.0, max(0.0, end - by)) for end in (part.low, part.high))
    return Interval(low, high)
