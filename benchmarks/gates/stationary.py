"""False alarms where nothing ever changes: made data, new rows from the same distributions every day, types only.

The thresholds were set on flights and weather. Here they must hold for what they were not set on: normal and lognormal
columns, counts, rare values, categories with a long tail; few rows and many; and the tests' tiny readings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks import common
from ml_platform.gates import drift
from ml_platform.gates.declaration import BatchGate
from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import Profiler
from ml_platform_tests.tiny_pipeline.data import readings

COLUMNS = 20


def measure(seed: int) -> None:
    """Print the table."""
    shown = common.Table(["data", "rows", "batches judged", "rejected", "warned", "farthest"])
    for rows, batches in ((60, 100), (200, 100), (2_000, 50), (100_000, 20)):
        random = np.random.default_rng([seed, rows])
        for name, make in (("normal", normal), ("lognormal", lognormal), ("mixed", mixed)):
            shown.add(name, rows, *_replay(partial(_made, make, random, rows), batches))
    shown.add("tiny readings", 60, *_replay(lambda number: _frame(readings(number, seed=seed)), 100))
    print(shown)


def _made(
    make: Callable[[np.random.Generator, int], pl.DataFrame], random: np.random.Generator, rows: int, _: int
) -> pl.DataFrame:
    return make(random, rows)


def normal(random: np.random.Generator, rows: int) -> pl.DataFrame:
    """Twenty normal columns."""
    return pl.DataFrame({f"x{i}": random.normal(i, i + 1, rows) for i in range(COLUMNS)})


def lognormal(random: np.random.Generator, rows: int) -> pl.DataFrame:
    """Twenty columns with heavy tails, the last ones very heavy."""
    return pl.DataFrame({f"x{i}": random.lognormal(0, 0.2 + i / 10, rows) for i in range(COLUMNS)})


def mixed(random: np.random.Generator, rows: int) -> pl.DataFrame:
    """Columns as tables have them: counts, rare flags, missing values, copies with noise, categories, a rising key."""
    base = random.normal(size=rows)
    found: dict[str, object] = {"key": np.arange(rows) + int(random.integers(1 << 40))}
    for i in range(4):
        found[f"count{i}"] = random.poisson(0.3 * 4**i, rows)
        found[f"rare{i}"] = random.random(rows) < 0.3 / 4**i
        found[f"like{i}"] = base + random.normal(0, 0.2 * 3**i, rows)
        found[f"category{i}"] = [f"c{value}" for value in np.minimum(random.zipf(1.5 + i / 2, rows), 500)]
        found[f"missing{i}"] = np.where(random.random(rows) < 0.4 / 5**i, np.nan, random.exponential(size=rows))
    return pl.DataFrame(found)


def _replay(make: Callable[[int], pl.DataFrame], batches: int) -> tuple[int, str, str, float]:
    gate, history, farthest = BatchGate(), list[Accepted](), list[float]()
    limits = gate.drift
    assert limits.reject is not None
    assert limits.warn is not None
    for number in range(batches):
        rows = make(number)
        profiler = Profiler(rows.schema)
        profiler.add(rows)
        profile = profiler.profile()
        if len(history) >= gate.least:
            farthest.append(max((one.distance for one in drift.distances(profile, history)), default=0.0))
            if farthest[-1] >= limits.reject:
                continue
        history = [*history, Accepted(batch=str(number), content=str(number), profile=profile)][-gate.history :]
    found = np.array(farthest)
    rejected, told = (found >= limits.reject).mean(), (found >= limits.warn).mean()
    return len(found), f"{rejected:.1%}", f"{told - rejected:.1%}", float(found.max())


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
