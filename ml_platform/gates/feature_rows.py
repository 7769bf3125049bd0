"""Feature rows as the gate of a feature matrix sees them: read once, a chunk at a time, and added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from ml_platform.gates.sketches import Numbers

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline

ROWS = 65_536
"""Rows read at a time."""
MOST_VALUES = 10_000
"""Values of a category that are told apart in a batch; the others are counted together."""
OTHERS = "(others)"


@dataclass
class FeatureRows:
    """What is known of some rows, by column: all features, and the label.

    Args:
        rows: how many.
        nulls, infinite: rows without a value (or not-a-number), rows with an infinite one.
        numbers: of doubles, without infinite ones.
        counts: rows by value: of strings, and of a binary label.
    """

    rows: int = 0
    nulls: Counter[str] = field(default_factory=Counter)
    infinite: Counter[str] = field(default_factory=Counter)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, pipeline: Pipeline, paths: Sequence[Path]) -> FeatureRows:
        """Of some files."""
        names, found = [*pipeline.features.columns, pipeline.label], cls()
        for path in paths:
            with pq.ParquetFile(path) as file:
                for chunk in file.iter_batches(batch_size=ROWS, columns=names):
                    frame = pl.from_arrow(chunk)
                    assert isinstance(frame, pl.DataFrame)
                    found.add(cls._of(pipeline, frame))
        return found

    @classmethod
    def together(cls, parts: Iterator[FeatureRows]) -> FeatureRows:
        """Of all of them."""
        found = cls()
        for part in parts:
            found.add(part)
        return found

    @classmethod
    def _of(cls, pipeline: Pipeline, frame: pl.DataFrame) -> FeatureRows:
        found = cls(rows=frame.height)
        for name in frame.columns:
            column = frame[name]
            if column.dtype == pl.String:
                found.nulls[name] = column.null_count()
                found.counts[name] = _counted(column.drop_nulls())
                continue
            values = column.to_numpy()
            known = values[~np.isnan(values)]
            finite = known[np.isfinite(known)]
            found.nulls[name] = len(values) - len(known)
            found.infinite[name] = len(known) - len(finite)
            found.numbers[name] = Numbers.of(finite)
            if name == pipeline.label and pipeline.task == "binary":
                found.counts[name] = _counted(pl.Series(name, finite).cast(pl.String))
        return found

    def add(self, other: FeatureRows) -> None:
        """Take these rows too."""
        self.rows += other.rows
        self.nulls.update(other.nulls)
        self.infinite.update(other.infinite)
        for name, numbers in other.numbers.items():
            self.numbers[name] = self.numbers.get(name, Numbers()).merge(numbers)
        for name, counts in other.counts.items():
            self.counts[name] = _kept(self.counts.get(name, Counter()) + counts)

    def shares(self, name: str) -> dict[str, float]:
        """Share of each value among the rows that have one."""
        total = max(1, self.counts[name].total())
        return {value: count / total for value, count in self.counts[name].items()}


def _counted(values: pl.Series) -> Counter[str]:
    counted = values.value_counts(name="rows")
    return _kept(Counter(dict(zip(counted[values.name].to_list(), counted["rows"].to_list(), strict=True))))


def _kept(counts: Counter[str]) -> Counter[str]:
    """The most frequent values by themselves, all others together."""
    if len(counts) <= MOST_VALUES:
        return counts
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[MOST_VALUES - 1 :])
    return Counter(dict(ranked[: MOST_VALUES - 1])) + Counter({OTHERS: rest})
