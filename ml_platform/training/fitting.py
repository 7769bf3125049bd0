"""Learning the preprocessing from shares of the rows: each rank sums up its own, and all merge them in rank order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.errors import FeatureError, TrainingError
from ml_platform.training.config import TrainingJob
from ml_platform.training.preprocessing import (
    Categorical,
    Label,
    Numeric,
    Preprocessing,
    category_values,
    kind_of,
    numeric_values,
)


@dataclass
class Moments:
    """Count, mean and sum of squared deviations of the finite values; how many were not finite or missing."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    missing: int = 0

    def merge(self, other: Moments) -> None:
        """Add another part (Chan, Golub, LeVeque 1979: numerically stable, and exact in the counts)."""
        total = self.count + other.count
        if other.count:
            delta = other.mean - self.mean
            self.mean += delta * other.count / total
            self.m2 += other.m2 + delta * delta * self.count * other.count / total
        self.count, self.missing = total, self.missing + other.missing

    @classmethod
    def of(cls, values: np.ndarray[Any, np.dtype[np.float64]]) -> Moments:
        """Of one column, float64 (rows,)."""
        finite = values[np.isfinite(values)]
        mean = float(finite.mean()) if finite.size else 0.0
        return cls(finite.size, mean, float(np.square(finite - mean).sum()), values.size - finite.size)

    @property
    def std(self) -> float:
        """Standard deviation of the population; 1 for a constant or absent column, which then stays at 0."""
        std = math.sqrt(self.m2 / self.count) if self.count else 0.0
        return std if std > 1e-12 * max(1.0, abs(self.mean)) else 1.0


@dataclass
class Partial:
    """What a share of the rows says: mergeable, small, and the same for the same rows in the same order."""

    kinds: dict[str, str]
    moments: dict[str, Moments] = field(default_factory=dict)
    values: dict[str, set[Any]] = field(default_factory=dict)
    rows: int = 0

    def merge(self, other: Partial) -> None:
        """Add another share."""
        for name, moments in other.moments.items():
            self.moments.setdefault(name, Moments()).merge(moments)
        for name, values in other.values.items():
            self.values.setdefault(name, set()).update(values)
        self.rows += other.rows


def kinds(job: TrainingJob, schema: pa.Schema) -> dict[str, str]:
    """How each category, and a classification's label, is compared; decided by the first file's types.

    Raises:
        FeatureError: a declared column is missing, or is of a type that it cannot be.
    """
    if missing := [name for name in job.columns if name not in schema.names]:
        raise FeatureError(
            "The training files lack a declared column.",
            where=job.files[0],
            got=", ".join(missing),
            fix=f"the file has {', '.join(schema.names)}",
        )
    found = {name: kind_of(schema.field(name).type, name) for name in job.categorical}
    if job.task == "regression":
        return found
    label = schema.field(job.label).type
    # A class that Spark wrote as 0.0 and 1.0 is a whole number all the same.
    found[job.label] = "integer" if pa.types.is_floating(label) else kind_of(label, job.label)
    return found


def summarize(job: TrainingJob, kinds: dict[str, str], table: pa.Table) -> Partial:
    """Sum up the rows of one table."""
    partial = Partial(kinds, rows=table.num_rows)
    for name in (*job.numeric, *([job.label] if job.task == "regression" else [])):
        partial.moments[name] = Moments.of(numeric_values(table, name))
    for name, kind in kinds.items():
        unique = pc.unique(category_values(table.select([name]), name, kind))
        partial.values[name] = set(unique.drop_null().to_pylist())
    return partial


def finish(job: TrainingJob, parts: Sequence[Partial]) -> Preprocessing:
    """Merge the parts, in the order given, into the preprocessing.

    Raises:
        TrainingError: the labels do not suit the task.
    """
    total = Partial(parts[0].kinds)
    for part in parts:
        total.merge(part)
    numeric = tuple(
        Numeric(name, total.moments[name].mean, total.moments[name].std, total.moments[name].missing > 0)
        for name in job.numeric
    )
    categorical = tuple(
        Categorical(name, total.kinds[name], tuple(sorted(total.values[name]))) for name in job.categorical
    )
    return Preprocessing(job.task, numeric, categorical, _label(job, total))


def _label(job: TrainingJob, total: Partial) -> Label:
    where = f"{job.pipeline}, label {job.label!r}"
    if job.task == "regression":
        target = total.moments[job.label]
        if target.missing:
            raise TrainingError("The target is infinite in some rows.", where=where, got=f"{target.missing} rows")
        return Label(job.label, "number", mean=target.mean, std=target.std)
    classes = tuple(sorted(total.values[job.label]))
    wanted = "two values" if job.task == "binary" else "at least two values"
    if len(classes) < 2 or (job.task == "binary" and len(classes) > 2):
        shown = ", ".join(map(repr, classes[:10])) + (", ..." if len(classes) > 10 else "")
        raise TrainingError(f"A {job.task} label needs {wanted} among the training rows.", where=where, got=shown)
    return Label(job.label, total.kinds[job.label], classes=classes)
