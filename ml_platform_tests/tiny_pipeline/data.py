"""Readings made from a seed. The state follows from load and vibration, with a little noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

LOTS = ("lot-01", "lot-02", "lot-03", "lot-04", "lot-05", "lot-06")
ROWS = 60


def sample() -> Iterator[tuple[str, str | None, pa.Table]]:
    """Yield ("readings", lot, table) for every lot."""
    for number, lot in enumerate(LOTS):
        yield "readings", lot, readings(number)


def readings(number: int, *, rows: int = ROWS, seed: int = 0) -> pa.Table:
    """The readings of one lot, the same for the same number and seed."""
    random = np.random.default_rng([seed, number])
    machine = random.choice(["press", "lathe", "saw"], rows)
    load = random.uniform(0, 1, rows).round(3)
    vibration = random.uniform(0, 10, rows).round(3)
    wear = vibration + 4 * load + np.where(machine == "saw", 2, 0) + random.normal(0, 0.3, rows)
    state = np.select([wear < 5, wear < 9], ["fine", "worn"], "broken")
    return pa.table(
        {
            "reading": pa.array(np.arange(rows) + number * 1000, pa.int64()),
            "machine": pa.array(machine.tolist(), pa.string()),
            "shift": pa.array(random.integers(1, 4, rows), pa.int64()),
            "load": pa.array(load, pa.float64()),
            "vibration": pa.array(vibration, pa.float64(), mask=random.uniform(size=rows) < 0.05),
            "state": pa.array(state.tolist(), pa.string(), mask=random.uniform(size=rows) < 0.05),
        }
    )
