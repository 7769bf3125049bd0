"""What the gate's tests share: good rows, and the gate in one call."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.gates.report import GateReport
from ml_platform.gates.schema import check
from ml_platform.pipeline import Source

SCHEMAS = "ml_platform_tests.gates.schemas"
Gate = Callable[..., GateReport]


def orders(rows: int = 200) -> pl.DataFrame:
    """Rows that `schemas.Orders` accepts."""
    n = pl.int_range(rows, eager=True)
    return pl.DataFrame(
        {
            "order": n.cast(pl.Int64),
            "day": pl.Series([dt.date(2024, 1, 1)]).new_from_index(0, rows),
            "shop": pl.Series(["north", "south", "east"]).gather(n % 3),
            "price": (n % 900).cast(pl.Float64) + 0.5,
            "paid": pl.select(pl.when(n % 7 == 0).then(None).otherwise((n % 900).cast(pl.Float64))).to_series(),
            "items": (n % 12 + 1).cast(pl.Int32),
            "note": pl.select(pl.when(n % 2 == 0).then(pl.lit('a, "quoted"\nnote')).otherwise(None)).to_series(),
        }
    )


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """`gate(frame or bytes or path, schema, format=..., memory_mib=...)`; it writes to `tmp_path / out.parquet`."""

    def run(
        data: Any,
        schema: str = "Orders",
        *,
        format: str = "parquet",
        memory_mib: int = 512,
        quarantine: float = 0.0,
        waived: bool = False,
        **options: Any,
    ) -> GateReport:
        landed = tmp_path / f"landed.{format}"
        if isinstance(data, bytes):
            landed.write_bytes(data)
        elif isinstance(data, pl.DataFrame):
            data.write_parquet(landed, **options) if format == "parquet" else data.write_csv(landed, **options)
        else:
            landed = data
        named = f"{SCHEMAS}:{schema}"
        source = Source(name="orders", schema=named, format=format, quarantine=quarantine)  # type: ignore[arg-type]
        out = tmp_path / "out.parquet"
        return check(landed, source, memory_mib=memory_mib, out=out, batch="2024-01-01", waived=waived)

    return run
