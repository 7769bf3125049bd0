"""Do the columns of a batch go together as they did? Finds what no column shows by itself: shuffled or shifted labels.

Three things, each against its own history:

- of two columns, the share of rows with a value in one that have a value in the other too;
- the correlation of two numeric columns and that of their ranks (Spearman 1904), which flip or vanish;
- each numeric column as predicted from all others by linear regression: how far its mean is from what theirs let
  expect, and how much they leave unexplained. The coefficients are those within the accepted batches together, from
  the inverse of their correlation matrix (Whittaker 1990). A day of delays moves departures and arrivals alike, and the
  difference stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml_platform.gates import robust
from ml_platform.gates.association import Pairs
from ml_platform.gates.figures import Distance
from ml_platform.gates.robust import Array

_FEWEST = 20
"""Rows: of fewer no share and no correlation is compared."""
_SHARE_EFFECT = 0.02
_CORRELATION_EFFECT = 0.05
_CORRELATED = 0.3
_PLACE_EFFECT = 0.03
"""Of the column's usual standard deviation."""
_FIT_EFFECT = 0.1
"""On the scale of logarithms: ten percent of what is left unexplained."""
_RIDGE = 0.03
"""Added to the correlation matrix: columns that follow from each other would have coefficients without bounds."""
_OFTEN = 0.5
_FILLED = 0.8
"""Columns with fewer values predict nothing: those who have one may be other rows."""


def distances(now: Pairs, history: Sequence[Pairs], steady: Sequence[str], flags: Sequence[str] = ()) -> list[Distance]:
    """Every relation of a batch against its history.

    Args:
        now: of the batch.
        history: of the accepted batches, oldest first.
        steady: numeric columns whose place can be compared from batch to batch.
        flags: those with two values: they go together with others, and are not predicted.
    """
    columns = [name for name in now.columns if all(name in one.columns for one in history)]
    known = [name for name in now.numeric if all(name in one.numeric for one in history)]
    numeric = [name for name in known if name in steady]
    related = [name for name in known if name in steady or name in flags]
    found = _correlations(related, [_Part.of(one, columns, related) for one in (now, *history)])
    parts = [_Part.of(one, columns, numeric) for one in (now, *history)]
    return [*_presence(columns, parts), *found, *_predictions(numeric, parts)]


@dataclass(frozen=True)
class _Part:
    """What is compared of one batch, of the same columns in all of them: p of all columns, q of numeric ones."""

    both: Array
    """(p, p) rows that have a value in both."""
    count: Array
    """(q, q) the same."""
    mean: Array
    """(q,)"""
    correlation: Array
    ranks: Array
    covariance: Array
    """(q, q) each."""

    @classmethod
    def of(cls, pairs: Pairs, columns: list[str], numeric: list[str]) -> _Part:
        all_ = np.ix_(*[[pairs.columns.index(name) for name in columns]] * 2)
        some = np.ix_(*[[pairs.numeric.index(name) for name in numeric]] * 2)
        return cls(
            pairs.count[all_],
            pairs.numeric_count[some],
            np.diag(pairs.mean[some]),
            pairs.correlation[some],
            pairs.rank_correlation[some],
            pairs.covariance[some],
        )


def _presence(columns: list[str], parts: list[_Part]) -> list[Distance]:
    if not columns:
        return []
    rows = np.stack([np.diag(part.both) for part in parts])
    # Of a column that is mostly missing, those who have one may be other rows every day.
    often = np.median(rows[1:] / rows[1:].max(axis=1, keepdims=True), axis=0) >= _OFTEN
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.stack([part.both for part in parts]) / rows[:, None, :]
    share = np.where((often & (rows >= _FEWEST))[:, None, :], share, np.nan)
    far = robust.share_distance(share[0], rows[0], share[1:], rows[1:, None, :], _SHARE_EFFECT)
    np.fill_diagonal(far, 0)
    found = []
    for i, name in enumerate(columns):
        j = int(np.abs(far[i]).argmax())
        if abs(far[i, j]) > 1:
            figure = f"share of values where {columns[j]} has one"
            found.append(Distance.of(name, "presence", figure, far[i, j], share[:, i, j]))
    return found


def _correlations(numeric: list[str], parts: list[_Part]) -> list[Distance]:
    if len(numeric) < 2:
        return []
    count = np.stack([part.count for part in parts])
    floor = np.hypot(1 / np.sqrt(np.maximum(count[0] - 3, 1)), _CORRELATION_EFFECT)
    found = []
    for figure, matrices in (
        ("correlation", [part.correlation for part in parts]),
        ("rank correlation", [part.ranks for part in parts]),
    ):
        r = np.where(count >= _FEWEST, np.stack(matrices), np.nan)
        far = robust.distance(r[0], r[1:], floor)
        if figure == "correlation":
            # A single row far out makes one where there is none, which ranks do not do: only what vanishes or flips.
            middle = robust.middle(r[1:])
            gone = (np.abs(r[0]) < np.abs(middle)) | ((r[0] * middle < 0) & (np.abs(middle) > _CORRELATED))
            far = np.where(gone, far, 0)
        found += [
            Distance.of(f"{numeric[i]}, {numeric[j]}", "correlation", figure, far[i, j], r[:, i, j])
            for i, j in zip(*np.nonzero(np.triu(np.abs(far), 1) > 1), strict=True)
        ]
    return found


def _predictions(numeric: list[str], parts: list[_Part]) -> list[Distance]:
    history = parts[1:]
    filled = np.array([np.median([part.both.max() for part in history])])
    count = np.median([np.diag(part.count) for part in history], axis=0)
    unit = np.sqrt(np.median([np.diag(part.covariance) for part in history], axis=0))
    kept = (count >= _FILLED * filled) & (unit > 0) & (np.diag(parts[0].count) >= _FEWEST)
    names = [name for name, keep in zip(numeric, kept, strict=True) if keep]
    if len(names) < 2:
        return []
    grid, scale = np.ix_(kept, kept), np.outer(unit[kept], unit[kept])
    correlation = np.stack([part.covariance[grid] / scale for part in parts])
    inverse = _inverse(robust.mean(correlation[1:]))
    own = np.diag(inverse)
    place = np.stack([part.mean[kept] / unit[kept] for part in parts])
    centre = np.median(place[1:], axis=0)
    left = (place - centre) @ inverse / own
    unexplained = np.sqrt(np.maximum(np.einsum("ij,kjl,li->ki", inverse, correlation, inverse), 0)) / own
    usual = robust.highest(unexplained[1:])  # the usual one says nothing of heavy tails
    rows = np.maximum(np.diag(parts[0].count)[kept], 1)
    far = robust.distance(left[0], left[1:], np.hypot(1.5 * usual / np.sqrt(rows), _PLACE_EFFECT))
    size = np.log(np.maximum(unexplained, 1e-3))
    # Less unexplained is no fault; pairs with missing values in other rows can even leave less than nothing.
    wide = np.maximum(robust.distance(size[0], size[1:], np.hypot(1.5 / np.sqrt(rows), _FIT_EFFECT)), 0)
    figures = (
        ("expected", "mean beyond what the other columns let expect", far, left * unit[kept]),
        ("unexplained", "spread that the other columns do not explain", wide, unexplained * unit[kept]),
    )
    return [
        Distance.of(names[i], code, figure, distance[i], values[:, i])
        for code, figure, distance, values in figures
        for i in np.flatnonzero(np.abs(distance) > 1)
    ]


def _inverse(correlation: Array) -> Array:
    """Of a correlation matrix estimated pair by pair, which may be a little indefinite."""
    values, vectors = np.linalg.eigh(correlation)
    found: Array = (vectors / (np.maximum(values, 0) + _RIDGE)) @ vectors.T
    return found
