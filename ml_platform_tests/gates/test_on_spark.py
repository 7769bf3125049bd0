"""Both engines come to the same verdict on the same file, and write the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest

from ml_platform.gates import on_spark, schema
from ml_platform.gates.profile import Profiler
from ml_platform.gates.report import GateReport
from ml_platform.pipeline import Source

from .conftest import SCHEMAS, orders
from .test_quarantine import spoilt

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

N = pl.int_range(pl.len())
MANY = orders(20_000)


def parquet(frame: pl.DataFrame) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frame.write_parquet(folder / "landed.parquet", row_group_size=700)
        return folder / "landed.parquet"

    return write


def csv(frame: pl.DataFrame) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        frame.write_csv(folder / "landed.csv")
        return folder / "landed.csv"

    return write


def raw(data: bytes, suffix: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / f"landed.{suffix}").write_bytes(data)
        return folder / f"landed.{suffix}"

    return write


def damaged(folder: Path) -> Path:
    path = parquet(MANY)(folder)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data) // 2):
        data[place] ^= 0xA5
    path.write_bytes(bytes(data))
    return path


HEADER = "order,day,shop,price,paid,items,note\n"
RAGGED = (
    HEADER + "1,2024-01-01,north,1.5,,2,\nshort\n2,soon,north,1,,2,\n3,2024-01-01,far,1,,2,\n4,2024-01-01,east,1,,2,\n"
)
WHEN = pl.Series(["2024-01-01"] * 3).str.to_datetime(time_zone="UTC")

FILES: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "good": (parquet(MANY), {}),
    "good csv": (csv(MANY), {}),
    "no rows": (parquet(MANY.clear()), {}),
    "no file": (lambda folder: folder / "landed.parquet", {}),
    "cut off": (raw(b"PAR1 and no more", "parquet"), {}),
    "damaged": (damaged, {}),
    "missing column": (parquet(MANY.drop("shop")), {}),
    "wrong type": (parquet(MANY.cast({"items": pl.String})), {}),
    "nulls and values": (
        parquet(
            MANY.with_columns(
                price=pl.when(N % 999 == 5).then(None).when(N > 15_000).then(-1.0).otherwise("price"),
                shop=pl.when(N == 13).then(pl.lit("west")).otherwise("shop"),
            )
        ),
        {},
    ),
    "rule across columns": (parquet(MANY.with_columns(paid=pl.when(N > 19_990).then(999.0).otherwise("paid"))), {}),
    "a key again": (parquet(pl.concat([MANY, MANY[17:18], MANY[9_000:9_001]])), {}),
    "a key again, csv": (csv(pl.concat([MANY, MANY[17:18]])), {}),
    "many keys again": (parquet(pl.concat([MANY, MANY[:12_000]])), {}),
    "text that is no value": (raw(RAGGED.encode(), "csv"), {}),
    "latin": (raw(HEADER.encode() + b"1,2024-01-01,north,1.5,,2,caf\xe9\n", "csv"), {}),
    "crashing": (parquet(pl.DataFrame({"x": range(10_000)})), {"schema": "CRASHING"}),
    "crashing on a row": (parquet(pl.DataFrame({"x": range(10_000)})), {"schema": "CRASHING_ROWS"}),
    "of the whole, kept": (parquet(pl.DataFrame({"x": [300] * 9_000, "g": ["a", "b"] * 4_500})), {"schema": "WHOLE"}),
    "of the whole, broken": (parquet(pl.DataFrame({"x": [900] * 9_000 + [10**8], "g": "a"})), {"schema": "WHOLE"}),
    "lossy": (
        parquet(pl.DataFrame({"key": [1.0, 2.5, 3.0], "amount": [1.0, 2.0, 3.0], "when": WHEN, "region": "a"})),
        {"schema": "Wide"},
    ),
    "categories": (
        parquet(
            pl.DataFrame({"kind": ["b", "a", "a"], "at": [1, 2, 3], "n": [1, 1, 1]}).cast(
                {"at": pl.Datetime("ns", "UTC"), "kind": pl.Categorical}
            )
        ),
        {"schema": "CATEGORIES"},
    ),
    "set aside": (parquet(spoilt(20_000, 0.1, np.random.default_rng(1))), {"quarantine": 0.5}),
    "set aside, csv": (csv(spoilt(20_000, 0.1, np.random.default_rng(2))), {"quarantine": 0.5}),
    "ragged set aside": (raw(RAGGED.encode(), "csv"), {"quarantine": 0.7}),
    "too many to set aside": (parquet(spoilt(20_000, 0.3, np.random.default_rng(3))), {"quarantine": 0.01}),
    "many keys set aside": (parquet(pl.concat([MANY, MANY[:12_000]])), {"quarantine": 0.8}),
    "whole of the valid": (
        parquet(pl.DataFrame({"x": [300] * 9_000 + [10**8], "g": [*["a", "b"] * 4_500, None]})),
        {"schema": "WHOLE", "quarantine": 0.01},
    ),
    "waived": (
        parquet(MANY.with_columns(price=pl.when(N % 999 == 5).then(None).otherwise("price"))),
        {"waived": True, "quarantine": 0.001},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_verdict_and_the_same_bytes(name: str, spark: SparkSession, tmp_path: Path) -> None:
    write, options = FILES[name]
    path = write(tmp_path)
    options = dict(options)
    named, waived = f"{SCHEMAS}:{options.pop('schema', 'Orders')}", options.pop("waived", False)
    source = Source(name="orders", schema=named, format=path.suffix[1:], **options)  # type: ignore[arg-type]
    found: list[tuple[GateReport, dict[str, bytes], str | None]] = []
    for engine in (schema.check, lambda *a, **k: on_spark.check(spark, *a, **k)):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        made: list[Profiler] = []

        def profiler(columns: Any, made: list[Profiler] = made) -> Profiler:
            made.append(Profiler(columns))
            return made[-1]

        report = engine(
            path, source, memory_mib=64, out=folder / "out.parquet", batch="b", waived=waived, profiler=profiler
        )
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        found.append((report, files, made[-1].profile().to_json() if made else None))
    (one, its_files, its_profile), (other, other_files, other_profile) = found
    if name == "damaged":  # after which row that is noticed depends on how much is read at once
        assert [(f.status, f.codes) for f in one.families] == [(f.status, f.codes) for f in other.families]
    else:
        assert one == other
    assert its_files == other_files
    assert its_profile == other_profile
    expected = {"out.parquet"} if one.accepted or (waived and one.waivable) else set()
    assert set(its_files) == expected | ({"out.quarantine.parquet"} if one.quarantined else set())


def test_the_suite_holds_every_kind_of_verdict(tmp_path: Path) -> None:
    statuses: dict[tuple[str, str], str] = {}
    for name, (write, options) in FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        path, options = write(folder), dict(options)
        named = f"{SCHEMAS}:{options.pop('schema', 'Orders')}"
        options.pop("waived", None)
        source = Source(name="orders", schema=named, format=path.suffix[1:], **options)  # type: ignore[arg-type]
        report = schema.check(path, source, memory_mib=64, out=None)
        statuses |= {(family.name, family.status): name for family in report.families}
    for family in ("readable", "columns", "types", "nulls", "values", "unique", "rules", "rows"):
        assert (family, "failed") in statuses
        if family not in ("columns", "rows"):
            assert (family, "warned") in statuses, family
