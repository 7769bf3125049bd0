"""Made batches of one feed for the tests of what compares a batch with accepted ones: ordinary, seeded, a day each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import polars as pl

from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import Profile, Profiler, Within
from ml_platform.pipeline import Source

FIRST = dt.date(2024, 1, 1)
"""A Monday."""
SOURCE = Source(name="orders", schema="ml_platform_tests.gates.schemas:Orders")


def day(number: int) -> str:
    """Name of a day, counted from 0."""
    return (FIRST + dt.timedelta(days=number)).isoformat()


def sales(number: int, rows: int = 400) -> pl.DataFrame:
    """One day's sales: a rising key, the day's own columns, prices in three shops, tax that follows from the price."""
    random = np.random.default_rng(number)
    price = random.lognormal(3, 0.4, rows)
    start = dt.datetime.combine(FIRST + dt.timedelta(days=number), dt.time(), dt.UTC)
    return pl.DataFrame(
        {
            "order": np.arange(rows) + 1000 * number,
            "month": np.full(rows, (FIRST + dt.timedelta(days=number)).month),
            "day": np.full(rows, (FIRST + dt.timedelta(days=number)).day),
            "at": [
                start + dt.timedelta(seconds=second) for second in sorted(random.integers(0, 86_400, rows).tolist())
            ],
            "shop": random.choice(["north", "south", "east"], rows, p=[0.5, 0.3, 0.2]),
            "price": price,
            "tax": price * 0.19 + random.normal(0, 0.2, rows),
            "paid": np.where(random.random(rows) < 0.1, np.nan, price),
        }
    )


def profile_of(*chunks: pl.DataFrame, within: Within | None = None) -> Profile:
    """The profile of rows that come in these chunks."""
    profiler = Profiler(chunks[0].schema, within=within)
    for chunk in chunks:
        profiler.add(chunk)
    return profiler.profile()


def accepted(frames: Sequence[pl.DataFrame], first: int = 0) -> list[Accepted]:
    """Accepted days with these rows, one after the other."""
    return [
        Accepted(batch=day(first + number), content=f"rows of {first + number}", profile=profile_of(frame))
        for number, frame in enumerate(frames)
    ]
