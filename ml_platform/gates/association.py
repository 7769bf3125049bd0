"""How columns go together in one batch: which are missing together, and pairwise moments of the numeric ones.

Everything that a correlation, a regression of one column on the others, or the share of rows where one column is
missing though another is not, needs to know; and it can be merged. One matrix product each, so it costs next to
nothing for some thousand rows.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MOST_RANKED = 20_000
"""Rows that are ranked."""
MOST_COLUMNS = 32
"""So many columns of a batch are compared in pairs, the first ones: the profile grows with their square."""


@dataclass(frozen=True)
class Pairs:
    """Pairwise moments over the rows in which both columns of a pair have a value.

    Args:
        columns: all columns whose presence is known, p of them.
        numeric: those of them that are numbers, q of them.
        present: (p, p) rows in which both have a value; base64 of little-endian int32, as the following of float32.
        means: (q, q) mean of the row's column where the other one has a value.
        roots: (q, q) root of the sum of squared distances from that mean: the sum itself may go beyond a float32.
        cosines: (q, q) sum of products of the distances of both from their means, over both roots; 0 where one is 0.
        ranks: (q, q) Spearman's rank correlation, of up to `MOST_RANKED` rows: of a few days of long delays Pearson's
            tells little.
    """

    columns: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    present: str = ""
    means: str = ""
    roots: str = ""
    cosines: str = ""
    ranks: str = ""

    @classmethod
    def of(
        cls, columns: Sequence[str], present: npt.NDArray[np.bool_], numeric: Sequence[str], values: Matrix
    ) -> Pairs:
        """Of rows: `present` (n, p) says where there is a value; `values` (n, q), not-a-number where there is none.

        Values are at most `sketches.LARGEST`, so that no square overflows.
        """
        here = present.astype(np.float32)  # counts stay exact up to 2 ** 24 rows
        there = np.isfinite(values)
        mask = there.astype(np.float64)
        count = mask.T @ mask
        # Distances from the column's own mean first: squares of times would lose their last digits otherwise.
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = np.where(mask.any(axis=0), np.where(there, values, 0).sum(axis=0) / mask.sum(axis=0), 0.0)
            x = np.where(there, values - centre, 0.0)
            mean = np.nan_to_num(x.T @ mask / count)
            m2 = np.square(x).T @ mask - count * np.square(mean)
            products = x.T @ x - count * mean * mean.T
        roots, cosines = _scaled(m2, products)
        return cls(
            tuple(columns),
            tuple(numeric),
            _pack(here.T @ here, "<i4"),
            _pack(mean + centre[:, None], "<f4"),
            _pack(roots, "<f4"),
            _pack(cosines, "<f4"),
            _pack(_rank_correlation(values), "<f4"),
        )

    @cached_property
    def count(self) -> Matrix:
        """`present`, shape (p, p)."""
        return _unpack(self.present, len(self.columns), "<i4")

    @cached_property
    def numeric_count(self) -> Matrix:
        """`present` of the numeric columns, shape (q, q)."""
        where = [self.columns.index(name) for name in self.numeric]
        return self.count[np.ix_(where, where)]

    @cached_property
    def mean(self) -> Matrix:
        """`means`, shape (q, q); [i, j] is the mean of column i where column j has a value."""
        return _unpack(self.means, len(self.numeric), "<f4")

    @cached_property
    def root(self) -> Matrix:
        """`roots`, shape (q, q)."""
        return _unpack(self.roots, len(self.numeric), "<f4")

    @cached_property
    def square(self) -> Matrix:
        """Sum of squared distances from the mean, shape (q, q)."""
        return np.square(self.root)

    @cached_property
    def product(self) -> Matrix:
        """Sum of products of the distances of both from their means, shape (q, q)."""
        return self.correlation * self.root * self.root.T

    @cached_property
    def correlation(self) -> Matrix:
        """Pearson's r, shape (q, q); 0 where a column of the pair does not vary, as nothing goes together with it."""
        return _unpack(self.cosines, len(self.numeric), "<f4")

    @cached_property
    def rank_correlation(self) -> Matrix:
        """`ranks`, shape (q, q)."""
        return _unpack(self.ranks, len(self.numeric), "<f4")

    @cached_property
    def covariance(self) -> Matrix:
        """Pairwise covariance, shape (q, q); 0 where fewer than two rows have both."""
        return self.product / np.maximum(self.numeric_count - 1, 1)

    def merge(self, other: Pairs) -> Pairs:
        """Of both batches together; of the columns that both know. By Chan, Golub and LeVeque (1983)."""
        columns = tuple(name for name in self.columns if name in other.columns)
        numeric = tuple(name for name in self.numeric if name in other.numeric)
        a, b = self._only(columns, numeric), other._only(columns, numeric)
        (n1, mean1, m2_1, product1, _), (n2, mean2, m2_2, product2, _) = a, b
        where = [columns.index(name) for name in numeric]
        n1, n2 = n1[np.ix_(where, where)], n2[np.ix_(where, where)]
        both = np.maximum(n1 + n2, 1)
        apart, weight = mean2 - mean1, n1 * n2 / both
        roots, cosines = _scaled(
            m2_1 + m2_2 + np.square(apart) * weight, product1 + product2 + apart * apart.T * weight
        )
        return Pairs(
            columns,
            numeric,
            _pack(a[0] + b[0], "<i4"),
            _pack(mean1 + apart * n2 / both, "<f4"),
            _pack(roots, "<f4"),
            _pack(cosines, "<f4"),
            # Ranks of the rows of both together are not known: the mean of both correlations.
            _pack((a[4] * n1 + b[4] * n2) / both, "<f4"),
        )

    def _only(self, columns: tuple[str, ...], numeric: tuple[str, ...]) -> tuple[Matrix, ...]:
        all_ = np.ix_(*[[self.columns.index(name) for name in columns]] * 2)
        some = np.ix_(*[[self.numeric.index(name) for name in numeric]] * 2)
        return self.count[all_], *(part[some] for part in (self.mean, self.square, self.product, self.rank_correlation))


def _scaled(m2: Matrix, products: Matrix) -> tuple[Matrix, Matrix]:
    """Roots and cosines of sums of squares and of products, (q, q) each."""
    roots = np.sqrt(np.maximum(m2, 0.0))
    scale = roots * roots.T
    return roots, np.clip(np.divide(products, scale, out=np.zeros_like(products), where=scale > 0), -1.0, 1.0)


def _rank_correlation(values: Matrix) -> Matrix:
    """Spearman's, pair by pair over the rows that have both, shape (n, q) to (q, q); of evenly spaced rows."""
    values = values[:: -(-len(values) // MOST_RANKED) or 1]
    there = np.isfinite(values).astype(np.float64)
    if not values.size:
        return np.zeros((values.shape[1], values.shape[1]))
    frame = pl.DataFrame(values, schema=[str(place) for place in range(values.shape[1])])
    ranks = frame.select(pl.all().fill_nan(None).rank() - 1).fill_null(np.nan).to_numpy()
    known = np.maximum(there.sum(axis=0), 1)
    x = np.where(there > 0, ranks - np.nansum(ranks, axis=0) / known, 0.0)
    count = np.maximum(there.T @ there, 1)
    mean = x.T @ there / count
    square = np.square(x).T @ there - count * np.square(mean)
    scale = np.sqrt(np.maximum(square * square.T, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Matrix = np.where(scale > 1e-9, (x.T @ x - count * mean * mean.T) / scale, 0.0)
    return np.clip(found, -1, 1)


def _pack(matrix: npt.NDArray[np.floating], type_: str) -> str:
    return base64.b64encode(np.ascontiguousarray(np.nan_to_num(matrix), type_).tobytes()).decode()


def _unpack(text: str, size: int, type_: str) -> Matrix:
    return np.frombuffer(base64.b64decode(text), type_).reshape(size, size).astype(np.float64)
