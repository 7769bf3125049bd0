"""A profile as arrays of figures, each with the scale on which it is compared. Made once a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ml_platform.gates import robust
from ml_platform.gates.robust import Array

if TYPE_CHECKING:
    from ml_platform.gates.profile import ColumnProfile, Profile
    from ml_platform.gates.sketches import Numbers

_BEYOND = 2
RANKS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

PLACES = ("mean", *(f"quantile {rank:g}" for rank in RANKS))
"""Where the values are: compared in units of the column's usual standard deviation."""
SHARES = ("nulls", "zeros", "negatives", "fractions", "most frequent")
"""Shares of the rows: compared as arcsin(sqrt(share)), whose sampling noise is the same for all shares."""
SIZES = ("spread", "distinct")
"""Sizes: compared by their logarithm."""
ENDS = ("least", "most")
"""The extremes: compared by the logarithm of their distance from the middle."""
TIMES = "times"
"""Code of the figure whose values are seconds since 1970."""
NAMES = (*PLACES, *SHARES, *SIZES, *ENDS)


@dataclass(frozen=True)
class Distance:
    """One figure of a batch against its history.

    Args:
        column: one column, or two joined by ", ".
        code: what kind of figure it is.
        figure: the same in words.
        distance: robust standard deviations, without sign.
        value: of the batch.
        usual: lowest and highest of the accepted batches, without outliers among them.
    """

    column: str
    code: str
    figure: str
    distance: float
    value: float
    usual: tuple[float, float]

    @classmethod
    def of(cls, column: str, code: str, figure: str, distance: float, values: Array) -> Distance:
        """With `values` of the batch and, behind it, of the accepted ones."""
        known = values[1:][np.isfinite(values[1:])]
        if len(known) and known.min() <= values[0] <= known.max():
            # Then it is far from most of them, and what it is not far from is an outlier among them.
            kept = known[~robust.outliers(np.abs(known - np.median(known)))]
            known = kept if values[0] < kept.min() or values[0] > kept.max() else known
        usual = (float(known.min()), float(known.max())) if len(known) else (float("nan"), float("nan"))
        return cls(column, code, figure, abs(float(distance)), float(values[0]), usual)


@dataclass(frozen=True)
class Figures:
    """Figures of one profile.

    Args:
        columns: names, c of them.
        table: (c, len(NAMES)) raw figures; not-a-number where a column has no such figure.
        noise: (c, len(PLACES)) standard deviation that a place has by chance, times the root of the rows.
        rows: (c,) rows in which each column has a value, of those sketched.
    """

    columns: tuple[str, ...]
    table: Array
    noise: Array
    rows: Array

    @classmethod
    def of(cls, profile: Profile) -> Figures:
        """All figures of a profile."""
        table = [_figures(column, profile.rows) for column in profile.columns.values()]
        noise = [_noise(column.numbers) for column in profile.columns.values()]
        rows = [float(column.numbers.count) for column in profile.columns.values()]
        return cls(
            tuple(profile.columns),
            np.array(table).reshape(-1, len(NAMES)),
            np.array(noise).reshape(-1, len(PLACES)),
            np.array(rows),
        )

    def of_columns(self, columns: tuple[str, ...]) -> Figures:
        """Of these columns, in this order; not-a-number where there is none."""
        if columns == self.columns:
            return self
        place = np.array([self.columns.index(name) if name in self.columns else -1 for name in columns], dtype=int)
        missing = (place < 0)[:, None]
        table, noise = (np.where(missing, np.nan, part[place]) for part in (self.table, self.noise))
        return Figures(columns, table, noise, np.where(missing[:, 0], 0, self.rows[place]))


def _figures(column: ColumnProfile, rows: int) -> list[float]:
    numbers, items = column.numbers, column.items
    found: dict[str, float] = {}
    if rows:
        found |= {"nulls": column.nulls / rows}
    if numbers.count:
        found |= {"mean": numbers.mean, "spread": numbers.std}
    if numbers.count and column.kind != "text":
        values = numbers.quantiles(RANKS)
        # Of a quantile that only a row or two lie beyond, the extremes tell as much.
        known = [min(rank, 1 - rank) * numbers.count >= _BEYOND for rank in RANKS]
        found |= {name: x for name, x, enough in zip(PLACES[1:], values, known, strict=True) if enough}
        found |= {"zeros": numbers.zeros / numbers.count, "negatives": numbers.negatives / numbers.count}
        found |= {"fractions": numbers.fractions / numbers.count, "least": numbers.least, "most": numbers.most}
    if items.rows:
        found |= {"distinct": items.distinct_count}
    if items.counts:
        found |= {"most frequent": items.counts[0][1] / items.rows}
    return [found.get(name, np.nan) for name in NAMES]


def _noise(numbers: Numbers) -> list[float]:
    """Of the mean, and of quantiles, which depends on how dense the values are there.

    A quantile at rank p of n values lies between those of p - 2 s and p + 2 s, s = sqrt(p (1 - p) / n), 19 times out of
    20 (order statistics, David and Nagaraja 2003). Where the values leave a gap there, it may be on either side.
    """
    if not numbers.count:
        return [np.nan] * len(PLACES)
    ranks = np.array(RANKS)
    step = np.sqrt(ranks * (1 - ranks) / numbers.count)
    low, high = (numbers.quantiles(np.clip(ranks + side * step, 0, 1).tolist()) for side in (-2, 2))
    root = np.sqrt(numbers.count)
    return [numbers.std, *((np.array(high) - np.array(low)) / 3 * root).tolist()]
