"""An accepted batch comes out as it went in, in canonical form."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from polars.testing import assert_frame_equal

from ml_platform.gates.report import FAMILIES, GateReport

from .conftest import Gate, orders


def out(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "out.parquet")


def test_content_types_and_order_of_rows_are_kept(gate: Gate, tmp_path: Path) -> None:
    frame = orders(3000)
    report = gate(frame)
    assert report.accepted, report.reason
    assert report.reason == "orders 2024-01-01: accepted, 3,000 rows."
    assert report.rows == 3000
    assert dict(report.columns)["items"] == "Int32"
    assert [result.status for result in report.families] == ["passed"] * len(FAMILIES)
    assert GateReport.from_json(report.to_json()) == report
    assert_frame_equal(out(tmp_path), frame)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["landed.parquet", "out.parquet"]


def test_csv_is_parsed_into_the_declared_types(gate: Gate, tmp_path: Path) -> None:
    frame = orders(3000)
    report = gate(frame, format="csv")
    assert report.accepted, report.reason
    assert_frame_equal(out(tmp_path), frame)


def test_csv_in_many_chunks_gives_the_bytes_of_the_parquet(gate: Gate, tmp_path: Path) -> None:
    frame = orders(60_000)
    assert gate(frame, memory_mib=16).accepted
    expected = (tmp_path / "out.parquet").read_bytes()
    report = gate(frame, format="csv", memory_mib=16)
    assert report.accepted, report.reason
    assert (tmp_path / "out.parquet").read_bytes() == expected


def test_csv_times_with_and_without_an_offset_are_utc(gate: Gate, tmp_path: Path) -> None:
    text = (
        "key,amount,when,region\n1,1.5,2024-01-01T02:00:00+02:00,a\n2,,2024-01-01 00:00:00Z,a\n3,1,2024-01-01 00:00,\n"
    )
    report = gate(text.encode(), "Wide", format="csv")
    assert report.accepted, report.reason
    assert out(tmp_path)["when"].unique().to_list() == [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]
    assert out(tmp_path)["region"].to_list() == ["a", "a", "unknown"]


def test_what_the_schema_coerces_is_widened(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "key": pl.Series([1, 2], dtype=pl.Int16),
            "amount": [1.5, None],
            "when": pl.Series([0, 5_000], dtype=pl.Datetime("ns", "UTC")),
            "region": ["a", None],
            "extra": [True, False],
        }
    )
    report = gate(frame, "Wide")
    assert report.accepted, report.reason
    assert out(tmp_path).schema == {
        "key": pl.Int64,
        "amount": pl.Float32,
        "when": pl.Datetime("us", "UTC"),
        "region": pl.String,
        "extra": pl.Boolean,
    }
    assert out(tmp_path)["region"].to_list() == ["a", "unknown"]


def test_columns_come_in_the_schemas_order_and_patterns_are_resolved(gate: Gate, tmp_path: Path) -> None:
    report = gate(pl.DataFrame({"c_2": [1.0], "extra": [1], "a": ["x"], "c_1": [2.0], "b": [1]}), "SHUFFLED")
    assert report.accepted, report.reason
    assert out(tmp_path).columns == ["b", "a", "c_2", "c_1", "extra"]


def test_categories_become_text_and_nanoseconds_microseconds(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame({"kind": ["b", "a"], "at": [1_000, 2_000], "n": [1, 1]}).cast({"at": pl.Datetime("ns", "UTC")})
    report = gate(frame, "CATEGORIES")
    assert report.accepted, report.reason
    stored = pq.read_schema(tmp_path / "out.parquet")
    assert [str(stored.field(name).type) for name in ("kind", "at")] == ["string", "timestamp[us, tz=UTC]"]
    assert out(tmp_path)["kind"].to_list() == ["b", "a"]


def test_the_same_rows_give_the_same_bytes_however_the_file_was_cut(gate: Gate, tmp_path: Path) -> None:
    frame = orders(150_000)
    results = set()
    for options in ({}, {"row_group_size": 1000}, {"row_group_size": 70_001, "compression": "snappy"}):
        assert gate(frame, memory_mib=256, **options).accepted
        results.add((tmp_path / "out.parquet").read_bytes())
    assert len(results) == 1
    metadata = pq.read_metadata(tmp_path / "out.parquet")
    assert [metadata.row_group(index).num_rows for index in range(2)] == [131_072, 18_928]
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert b"pandas" not in (metadata.metadata or {})


def test_nothing_is_written_when_only_the_verdict_is_asked_for(tmp_path: Path) -> None:
    from ml_platform.gates.schema import check
    from ml_platform.pipeline import Source

    from .conftest import SCHEMAS

    orders().write_parquet(tmp_path / "landed.parquet")
    source = Source(name="orders", schema=f"{SCHEMAS}:Orders")
    assert check(tmp_path / "landed.parquet", source, memory_mib=64, out=None).accepted
    assert [path.name for path in tmp_path.iterdir()] == ["landed.parquet"]


def test_a_name_that_looks_like_a_pattern_is_a_name(gate: Gate, tmp_path: Path) -> None:
    odd = tmp_path / "a[1]=*.parquet"
    orders().write_parquet(odd)
    assert gate(odd).accepted
