"""Small mergeable summaries of a column, by Apache DataSketches: moments, quantiles, distinct and frequent values.

Every one of them is the same bytes for the same values in the same order. That decided which sketches are used: a
t-digest and not KLL or REQ, whose compactions toss coins that cannot be seeded from Python; HyperLogLog and frequent
items use fixed hashes and no chance at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import datasketches
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DIGEST_K = 50
"""Of the t-digest: at most 0.4 % off in rank at the median, less at the ends, in some 600 bytes."""
_GRID = (0.001, 0.0025, 0.005, *(place / 64 for place in range(1, 64)), 0.995, 0.9975, 0.999)
DISTINCT_LG_K = 9
"""Of HyperLogLog: 512 registers, 4.6 % standard error, exact for the first dozens of values."""
ITEMS_LG_SIZE = 7
"""Of frequent items: 96 values are counted exactly; of more, all that have over 2.7 % of the rows are kept."""
ITEMS = 96
LARGEST = 1e33
"""What is farther from zero is sketched as this: beyond it, sums of squares and single precision overflow."""


@dataclass(frozen=True)
class Numbers:
    """What is known of numbers: moments, and a t-digest of their distribution.

    Args:
        count: how many, without missing ones.
        mean: 0 where there are none.
        m2: sum of squared distances from the mean.
        zeros, negatives, fractions: how many are 0, below 0, not whole.
        least, most: the extremes, 0 where there are none.
        digest: the t-digest (single precision), base64; "" where all values are the same.
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    zeros: int = 0
    negatives: int = 0
    fractions: int = 0
    least: float = 0.0
    most: float = 0.0
    digest: str = ""

    @classmethod
    def of(cls, values: Floats) -> Numbers:
        """Of numbers up to `LARGEST`, shape (n,)."""
        if not len(values):
            return cls()
        mean, least, most = float(values.mean()), float(values.min()), float(values.max())
        return cls(
            count=len(values),
            mean=mean,
            m2=float(np.square(values - mean).sum()),
            zeros=int(np.count_nonzero(values == 0)),
            negatives=int(np.count_nonzero(values < 0)),
            fractions=int(np.count_nonzero(values != np.floor(values))),
            least=least,
            most=most,
            digest=_digest(values) if least < most else "",
        )

    @property
    def std(self) -> float:
        """Sample standard deviation, 0 for fewer than two values."""
        return float(np.sqrt(self.m2 / (self.count - 1))) if self.count > 1 else 0.0

    def quantiles(self, ranks: Sequence[float]) -> list[float]:
        """Values at these ranks, 0 to 1; the mean where there is no digest."""
        if not self.digest:
            return [self.mean] * len(ranks)
        found: list[float] = np.interp(ranks, *self._distribution).tolist()
        return found

    def shares(self, edges: Sequence[float]) -> list[float]:
        """Share of the values up to each of these, ascending: the distribution function."""
        sketch = self._sketch
        if sketch is None:
            return [float(self.count > 0 and self.mean <= edge) for edge in edges]
        return [float(sketch.get_rank(edge)) for edge in edges]

    def merge(self, other: Numbers) -> Numbers:
        """Of both together. Moments by Chan, Golub and LeVeque (1983), exact up to rounding."""
        if not self.count or not other.count:
            return self if self.count else other
        count, apart = self.count + other.count, other.mean - self.mean
        return Numbers(
            count=count,
            mean=self.mean + apart * other.count / count,
            m2=self.m2 + other.m2 + apart * apart * self.count * other.count / count,
            zeros=self.zeros + other.zeros,
            negatives=self.negatives + other.negatives,
            fractions=self.fractions + other.fractions,
            least=min(self.least, other.least),
            most=max(self.most, other.most),
            digest=self._merged(other),
        )

    def _merged(self, other: Numbers) -> str:
        if not (self.digest or other.digest) and self.mean == other.mean:
            return ""
        sketch = datasketches.tdigest_float(DIGEST_K)
        for part in (self, other):
            if (its := part._sketch) is not None:
                sketch.merge(its)
            else:
                sketch.update(np.full(part.count, part.mean, dtype=np.float32))
        return _packed(sketch)

    @cached_property
    def _distribution(self) -> tuple[Floats, Floats]:
        """Ranks and the values at them, ascending.

        Inverts `get_rank`, which is off by 0.4 % at most: `get_quantile` of the same t-digest is off by up to 5 %.
        """
        sketch = self._sketch
        assert sketch is not None
        inner = [sketch.get_quantile(rank) for rank in _GRID]
        values = np.unique(np.array([self.least, *inner, self.most], dtype=np.float32))
        # Where many rows have one value the rank jumps there: its ranks from below and from above.
        sides = (np.nextafter(values, side * np.float32(np.inf), dtype=np.float32) for side in (-1, 1))
        below, above = ([sketch.get_rank(value) for value in side.tolist()] for side in sides)
        ranks = np.column_stack([[0.0, *below[1:]], [*above[:-1], 1.0]]).ravel()
        return np.maximum.accumulate(ranks), np.repeat(values.astype(np.float64), 2)

    @property
    def _sketch(self) -> datasketches.tdigest_float | None:
        """Made anew each time: one that is alive when the process ends is reported as a leak on its standard error."""
        return datasketches.tdigest_float.deserialize(base64.b64decode(self.digest)) if self.digest else None


@dataclass(frozen=True)
class Items:
    """The frequent values of a column, as text, and how many distinct ones there are.

    Args:
        counts: (value, rows), most frequent first; the lower bounds of the counts where `error` is not 0. Empty
            where nearly every value is another one.
        error: at most so many rows are missing from a count, and no value with more rows is left out. 0: all exact.
        rows: how many values were counted.
        distinct: HyperLogLog of all values, base64.
    """

    counts: tuple[tuple[str, int], ...] = ()
    error: int = 0
    rows: int = 0
    distinct: str = ""

    @classmethod
    def of(cls, values: Sequence[str] | Sequence[float], counts: Sequence[int]) -> Items:
        """Of the distinct values of a column, each with its number of rows."""
        rows = sum(counts)
        sketch = datasketches.hll_sketch(DISTINCT_LG_K, datasketches.tgt_hll_type.HLL_4)
        update = sketch.update
        for value in values:
            update(value)
        distinct = _text(sketch.serialize_compact())
        if len(values) > max(ITEMS, rows // 2):
            return cls(error=rows, rows=rows, distinct=distinct)
        texts = (value if isinstance(value, str) else _number(value) for value in values)
        return cls(*_frequent(zip(texts, counts, strict=True)), rows=rows, distinct=distinct)

    @property
    def exact(self) -> bool:
        """Whether every value is in `counts`, with exactly its rows."""
        return self.error == 0

    @cached_property
    def distinct_count(self) -> float:
        """How many distinct values; estimated where there are more than a few."""
        if self.exact:
            return float(len(self.counts))
        return float(datasketches.hll_sketch.deserialize(base64.b64decode(self.distinct)).get_estimate())

    @cached_property
    def codes(self) -> npt.NDArray[np.uint64]:
        """A number for each value of `counts`, the same for the same value in every process, unlike `hash`."""
        digests = [hashlib.blake2b(value.encode(), digest_size=8).digest() for value, _ in self.counts]
        return np.frombuffer(b"".join(digests), dtype="<u8")

    @cached_property
    def portions(self) -> Floats:
        """Share of the rows of each value of `counts`, in its order."""
        return np.array([count for _, count in self.counts], dtype=np.float64) / max(1, self.rows)

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Share of the rows by value, of the values that are known."""
        return dict(zip((value for value, _ in self.counts), self.portions.tolist(), strict=True))

    def merge(self, other: Items) -> Items:
        """Of both together: exact where both are and the values stay few."""
        if not self.rows or not other.rows:
            return self if self.rows else other
        union = datasketches.hll_union(DISTINCT_LG_K)
        for part in (self, other):
            union.update(datasketches.hll_sketch.deserialize(base64.b64decode(part.distinct)))
        distinct = _text(union.get_result(datasketches.tgt_hll_type.HLL_4).serialize_compact())
        counts, error = _frequent((*self.counts, *other.counts))
        return Items(counts, error + self.error + other.error, self.rows + other.rows, distinct)


def _number(value: float) -> str:
    """As text; whole numbers with all digits, as keys of 13 digits would be counted as one otherwise."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else f"{value:.12g}"


def _frequent(pairs: Iterable[tuple[str, int]]) -> tuple[tuple[tuple[str, int], ...], int]:
    sketch = datasketches.frequent_strings_sketch(ITEMS_LG_SIZE)
    for value, count in pairs:
        sketch.update(value, count)
    found = sketch.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES)
    error = max((upper - lower for _, _, lower, upper in found), default=0)
    kept = sorted(((value, int(lower)) for value, _, lower, _ in found if lower), key=lambda item: (-item[1], item[0]))
    return tuple(kept), int(error)


def _digest(values: Floats) -> str:
    sketch = datasketches.tdigest_float(DIGEST_K)
    sketch.update(values.astype(np.float32))
    return _packed(sketch)


def _packed(sketch: datasketches.tdigest_float) -> str:
    sketch.compress()
    return _text(sketch.serialize())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
