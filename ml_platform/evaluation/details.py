"""What one figure for all rows does not tell: each class of many, and how large the errors of a regression get."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.intervals import LEAST, Answers, Interval, draws_for, interval, weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MOST_CLASSES = 50
"""Classes in the table, those with the most rows."""
QUANTILES: Mapping[str, float] = {"error_p50": 0.5, "error_p90": 0.9, "error_p99": 0.99}
"""Of the absolute errors of a regression, by the metric's name."""


def by_class(answers: Answers, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, the one with the most rows first.

    Args:
        answers: of a multiclass model.
        draws, confidence, seed: as `intervals.intervals`'s.

    Returns:
        For each class: `class`, `rows`, `called` (how many rows were said to be of it), and each of the three with
        its interval `<name>_low`, `<name>_high`; None where one is not defined. Empty where scores are not finite.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    if not len(answers.target) or not np.isfinite(answers.scores).all():
        return []
    names = (np.unique(answers.target) if answers.classes is None else np.asarray(answers.classes)).tolist()
    index = {name: number for number, name in enumerate(names)}
    actual = np.array([index.get(value, -1) for value in answers.target.tolist()])
    said = answers.scores.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is undefined is None, which says it
        figures = precision_recall_fscore_support(actual, said, labels=range(len(names)), zero_division=np.nan)
    shown = np.argsort(-figures[3], kind="stable")[:MOST_CLASSES]
    hit, of_class, called = (
        (a == shown[:, None]).T.astype(np.float64) for a in (np.where(actual == said, said, -1), actual, said)
    )
    stacked = np.concatenate([hit, of_class, called], axis=1)
    parts = []
    for drawn in weights(len(actual), draws_for(len(actual), draws), seed=seed):
        hits, good, every = np.split(drawn @ stacked, 3, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append(np.stack([hits / every, hits / good, 2 * hits / (every + good)]))
    drawn_figures = np.concatenate(parts, axis=1)  # of shape (3, draws, classes)
    found = []
    for place, number in enumerate(shown.tolist()):
        row: dict[str, Any] = {"class": str(names[number]), "rows": int(figures[3][number])}
        row["called"] = int((said == number).sum())
        for kind, name in enumerate(("precision", "recall", "f1")):
            enough = LEAST <= row["rows"] <= len(actual) - LEAST
            around = interval(drawn_figures[kind, :, place], confidence) if enough else None
            value = float(figures[kind][number])
            row |= {name: None if np.isnan(value) else value}
            row |= {f"{name}_low": around.low if around else None, f"{name}_high": around.high if around else None}
        found.append(row)
    return found


def error_quantiles(answers: Answers) -> dict[str, float]:
    """Absolute errors that a share of the rows does not exceed, in the label's unit; NaN where not defined."""
    import numpy as np

    errors = np.abs(answers.target.astype(np.float64) - answers.scores)
    if not len(errors) or not np.isfinite(errors).all():
        return dict.fromkeys(QUANTILES, float("nan"))
    found = np.quantile(errors, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, map(float, found), strict=True))


def error_intervals(
    answers: Answers, *, draws: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of `error_quantiles`; none where they are not defined.

    Args: as `intervals.intervals`'s.
    """
    import numpy as np

    errors = np.abs(answers.target.astype(np.float64) - answers.scores)
    if len(errors) < LEAST or not np.isfinite(errors).all():
        return {}
    order = np.argsort(errors, kind="stable")
    errors = errors[order]
    # Of so many drawn rows in ascending order, which one has the quantile: as in `error_quantiles`.
    wanted = np.ceil(np.asarray(list(QUANTILES.values())) * len(errors))
    parts = []
    for drawn in weights(len(errors), draws_for(len(errors), draws), seed=seed):
        below = np.cumsum(np.take(drawn, order, axis=1), axis=1)
        parts.append(np.array([errors[np.searchsorted(row, wanted)] for row in below]))
    found = (interval(values, confidence) for values in np.concatenate(parts).T)
    return {name: part for name, part in zip(QUANTILES, found, strict=True) if part is not None}
