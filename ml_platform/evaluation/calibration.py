"""Whether probabilities can be taken at their word: the expected calibration error, with an interval.

Rows are sorted by the probability of what the model says (of the positive class for two, of the likeliest for more) and
cut into bins of about equally many; the error is the mean over rows of how far a bin's mean probability is from the
share that came true (Guo et al., On Calibration of Modern Neural Networks, ICML 2017; bins of equal mass: Nguyen and
O'Connor, EMNLP 2015). Equal probabilities are never torn apart, so the order of rows makes no difference.

Chance alone keeps the error above 0, and drawing rows anew adds as much again. So the interval is the basic one
(Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 5.2), which takes that away on both ends;
its lower end is near 0 for a model that is calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.intervals import Answers, Interval, draws_for, interval, weights
from ml_platform.evaluation.metrics import binary_target

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

BINS = 15


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities are from the shares that come true.

    Args:
        error: the expected calibration error, 0 (as said) to 1.
        low, high: its interval.
        bins: `rows`, `predicted` (mean probability) and `came true` (share) of each bin, in ascending order.
    """

    error: float
    low: float
    high: float
    bins: tuple[dict[str, Any], ...]


def calibration(answers: Answers, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0) -> Calibration | None:
    """The calibration of a classifier; None for a regression, without rows, or where scores are not finite.

    Args: as `intervals.intervals`'s.
    """
    import numpy as np

    if not _can_tell(answers):
        return None
    probability, true = _ordered(answers)
    starts = _starts(probability)
    wrong = true - probability
    parts = [
        np.abs(np.add.reduceat(drawn * wrong, starts, axis=1)).sum(axis=1) / len(wrong)
        for drawn in weights(len(wrong), draws_for(len(wrong), draws), seed=seed)
    ]
    error = calibration_error(answers)
    around = interval(np.concatenate(parts), confidence) or Interval(error, error)
    rows = np.diff(np.r_[starts, len(wrong)])
    return Calibration(
        error=error,
        low=max(0.0, 2 * error - around.high),
        high=max(0.0, 2 * error - around.low),
        bins=tuple(
            {"rows": int(count), "predicted": float(predicted), "came true": float(share)}
            for count, predicted, share in zip(
                rows, np.add.reduceat(probability, starts) / rows, np.add.reduceat(true, starts) / rows, strict=True
            )
        ),
    )


def calibration_error(answers: Answers) -> float:
    """The expected calibration error alone; NaN where `calibration` says nothing."""
    import numpy as np

    if not _can_tell(answers):
        return float("nan")
    probability, true = _ordered(answers)
    return float(np.abs(np.add.reduceat(true - probability, _starts(probability))).sum() / len(true))


def _can_tell(answers: Answers) -> bool:
    import numpy as np

    return answers.task != "regression" and len(answers.target) > 0 and bool(np.isfinite(answers.scores).all())


def _ordered(answers: Answers) -> tuple[Floats, Floats]:
    import numpy as np

    probability, true = said(answers)
    order = np.argsort(probability, kind="stable")
    return probability[order], true[order]


def said(answers: Answers) -> tuple[Floats, Floats]:
    """The probability that stands for each row, and 1 where it came true; each of shape (rows,).

    Of two classes that is the positive one's, of more the likeliest's.
    """
    import numpy as np

    if answers.task == "binary":
        return answers.scores, binary_target(answers.target, answers.classes).astype(np.float64)
    classes = np.unique(answers.target) if answers.classes is None else np.asarray(answers.classes)
    likeliest = answers.scores.argmax(axis=1)
    true = np.asarray([a == b for a, b in zip(classes[likeliest].tolist(), answers.target.tolist(), strict=True)])
    return answers.scores.max(axis=1), true.astype(np.float64)


def _starts(ordered: Floats) -> npt.NDArray[np.int64]:
    """Where each bin begins in sorted probabilities. A cut falls on the first of equal values."""
    import numpy as np

    cuts = np.arange(BINS) * len(ordered) // BINS
    return np.unique(np.searchsorted(ordered, ordered[cuts]))
