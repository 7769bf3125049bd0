"""Rows that break a rule are set aside up to a share of the batch: none is lost, let through, or there twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.gates.profile import Profile, Profiler
from ml_platform.gates.report import GateReport
from ml_platform.gates.schema import check
from ml_platform.pipeline import Source

from .conftest import SCHEMAS, Gate, orders
from .schemas import Orders

TINY = 1
"""MiB; a file of a few thousand rows then takes many chunks."""


def kept(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "out.parquet")


def aside(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "out.quarantine.parquet")


def spoilt(rows: int, share: float, random: np.random.Generator) -> pl.DataFrame:
    """Good rows, and about that share of bad ones of every kind, at random places."""
    frame = orders(rows)
    picked = pl.Series(random.choice([0] * 7 + [1, 2, 3, 4, 5, 6, 7], rows)) * (random.random(rows) < share * 2)
    n = pl.int_range(pl.len())
    again = int(random.integers(rows))
    return frame.with_columns(
        price=pl.when(picked == 1).then(None).when(picked == 2).then(5000.0).otherwise("price"),
        paid=pl.when(picked == 3).then(999.9).otherwise("paid"),
        shop=pl.when(picked == 4).then(pl.lit("west")).otherwise("shop"),
        items=pl.when(picked == 5).then(13).otherwise("items").cast(pl.Int32),
        order=pl.when((picked == 6) | (n == again)).then(again).otherwise("order"),
        day=pl.when(picked == 7).then(None).otherwise("day"),
    )


def bad_rows(frame: pl.DataFrame) -> pl.Series:
    """Which rows cannot stay, found in another way: what pandera refuses, row by row, and then the keys."""
    alone = frame.select(
        pl.any_horizontal(
            pl.col("price").is_null(),
            pl.col("day").is_null(),
            pl.col("price") > 1000,
            pl.col("shop") == "west",
            pl.col("items") == 13,
            pl.col("paid") > pl.col("price"),
        ).fill_null(False)
    ).to_series()
    rows = frame.with_row_index("number").filter(~alone)
    again = rows.filter(rows.select("order", "day").is_duplicated())["number"]
    return alone | pl.int_range(frame.height, eager=True).is_in(again.implode())


@pytest.mark.parametrize("seed", range(12))
def test_valid_and_set_aside_rows_are_the_rows_that_came(gate: Gate, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    frame = spoilt(int(random.integers(50, 9000)), float(random.choice([0.002, 0.05, 0.3])), random)
    bad = bad_rows(frame)
    format_ = ["parquet", "csv"][seed % 2]
    options = {"row_group_size": 500} if format_ == "parquet" else {}
    report = gate(frame, format=format_, quarantine=0.9, memory_mib=[TINY, 512][seed % 3 > 0], **options)
    assert report.accepted, report.reason
    assert report.rows == frame.height
    assert report.quarantined == bad.sum()
    assert_frame_equal(kept(tmp_path), frame.filter(~bad))
    Orders.validate(kept(tmp_path), lazy=True)
    if bad.any():
        found = aside(tmp_path)
        assert found["row"].to_list() == bad.arg_true().to_list()
        came = frame.filter(bad)
        if format_ == "csv":
            came.write_csv(tmp_path / "came.csv")
            came = pl.read_csv(tmp_path / "came.csv", infer_schema=False)
        assert_frame_equal(found.select(frame.columns), came)
        assert all(found["broke"].list.len() > 0)
    else:
        assert not (tmp_path / "out.quarantine.parquet").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_the_reasons_stand_with_the_rows_and_in_the_report(gate: Gate, tmp_path: Path) -> None:
    n = pl.int_range(pl.len())
    frame = orders(1000).with_columns(
        price=pl.when(n == 3).then(5000.0).when(n == 5).then(None).otherwise("price"),
        shop=pl.when(n == 3).then(pl.lit("west")).otherwise("shop"),
        order=pl.when(n == 900).then(10).otherwise("order"),
    )
    report = gate(frame, quarantine=0.01)
    assert report.accepted
    assert report.quarantined == 4
    assert report.reason == "orders 2024-01-01: accepted, 996 rows; 4 of 1,000 are set aside."
    assert dict(aside(tmp_path).select("row", "broke").iter_rows()) == {
        3: ["in_range(0, 1000) on price", "isin(['north', 'south', 'east']) on shop"],
        5: ["not_nullable on price"],
        10: ["unique on order, day"],
        900: ["unique on order, day"],
    }
    told = {family.name: family for family in report.families if family.status == "warned"}
    assert {name: family.failures for name, family in told.items()} == {"nulls": 1, "values": 1, "unique": 2}
    assert told["unique"].fraction == pytest.approx(0.002)
    assert told["values"].message.startswith("1 of 1,000 rows set aside: 1 of 1,000 rows break in_range(0, 1000)")
    assert [case["row"] for case in told["unique"].cases] == [10, 900]
    assert report.family("rules").status == "passed"
    assert report.failed == ()
    assert GateReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(("share", "accepted"), [(0.01, True), (0.0099, False), (0.0, False)])
def test_one_row_more_than_may_be_set_aside_rejects_the_batch(
    gate: Gate, tmp_path: Path, share: float, accepted: bool
) -> None:
    frame = orders(1000).with_columns(price=pl.when(pl.int_range(pl.len()) < 10).then(-1.0).otherwise("price"))
    report = gate(frame, quarantine=share)
    assert report.accepted == accepted
    assert report.quarantined == (10 if accepted else 0)
    assert (tmp_path / "out.parquet").exists() == accepted
    assert (tmp_path / "out.quarantine.parquet").exists() == accepted
    assert report.family("values").status == ("warned" if accepted else "failed")
    if share and not accepted:
        assert "10 of 1,000 rows are bad in all, and up to 0.99% may be set aside" in report.reason


def test_rows_that_are_all_bad_are_a_rejected_batch(gate: Gate, tmp_path: Path) -> None:
    report = gate(orders(100).with_columns(price=pl.lit(-1.0), paid=pl.lit(None, pl.Float64)), quarantine=1.0)
    assert report.failed == ("values",)
    assert not (tmp_path / "out.quarantine.parquet").exists()


def test_a_twin_that_is_bad_anyway_takes_nobody_with_it(gate: Gate, tmp_path: Path) -> None:
    frame = pl.concat([orders(100), orders(100)[7:8].with_columns(price=pl.lit(-1.0), paid=pl.lit(None, pl.Float64))])
    report = gate(frame, quarantine=0.5)
    assert report.quarantined == 1
    assert aside(tmp_path)["row"].to_list() == [100]
    assert_frame_equal(kept(tmp_path), orders(100))


def test_more_keys_that_occur_again_than_are_shown_are_all_set_aside(gate: Gate, tmp_path: Path) -> None:
    frame = pl.concat([orders(60_000), orders(60_000)[:25_000]])
    assert not gate(frame, quarantine=0.5, memory_mib=64, row_group_size=10_000).accepted
    report = gate(frame, quarantine=0.6, memory_mib=64, row_group_size=10_000)
    assert report.quarantined == 50_000
    assert report.family("unique").failures == 50_000
    assert_frame_equal(kept(tmp_path), orders(60_000)[25_000:])
    rows = aside(tmp_path)["row"]
    assert rows.to_list() == [*range(25_000), *range(60_000, 85_000)]


def test_text_that_is_no_value_and_lines_of_the_wrong_length(gate: Gate, tmp_path: Path) -> None:
    good = "".join(f'{n},2024-01-01,north,1.5,,2,"a\nb"\n' for n in range(6000))
    lines = good.splitlines(keepends=True)
    # Two lines a row. A short one, one that cannot be read, a long one, and one that is merely out of range.
    lines[20:20] = ["short,2024-01-01\n", "10,yesterday,north,1.5,,many,\n"]
    lines[9000:9000] = ["9,2024-01-01,east,1,1,2,x,y\n", "9999999,2024-01-01,north,-4,,2,\n"]
    text = "order,day,shop,price,paid,items,note\n" + "".join(lines)
    for memory in (TINY, 512):
        report = gate(text.encode(), format="csv", quarantine=0.01, memory_mib=memory)
        assert report.accepted, report.reason
        assert report.rows == 6004
        assert report.quarantined == 4
        found = aside(tmp_path)
        assert found.select("row", "broke", "text", "order").rows() == [
            (10, ["2 fields instead of 7"], "short,2024-01-01", None),
            (11, ["is written as Date on day", "is written as Int32 on items"], None, "10"),
            (4501, ["8 fields instead of 7"], "9,2024-01-01,east,1,1,2,x,y", None),
            (4502, ["in_range(0, 1000) on price"], None, "9999999"),
        ]
        assert kept(tmp_path)["order"].to_list() == list(range(6000))
        warned = {family.name for family in report.families if family.status == "warned"}
        assert warned == {"readable", "types", "values"}
        assert [case["row"] for case in report.family("values").cases] == [4502]


def test_numbers_that_a_coercion_would_change_and_times_too_fine(gate: Gate, tmp_path: Path) -> None:
    when = pl.Series([dt.datetime(2024, 1, 1)] * 3).dt.replace_time_zone("UTC")
    frame = pl.DataFrame({"key": [1.0, 2.5, 3.0], "amount": [1.0, 2.0, 3.0], "when": when, "region": ["a", None, "b"]})
    assert gate(frame, "Wide", quarantine=0.5).quarantined == 1
    assert kept(tmp_path)["key"].to_list() == [1, 3]
    assert aside(tmp_path)["key"].to_list() == [2.5]

    text = pl.DataFrame({"key": ["1", "two", "3"], "amount": [1.0, 2.0, 3.0], "when": when, "region": ["a", "b", "c"]})
    assert gate(text, "Wide", quarantine=0.5).quarantined == 1
    assert aside(tmp_path).select("row", "broke", "key").row(0) == (1, ["fits Int64 on key"], "two")

    times = pl.DataFrame({"kind": ["a", "b"], "at": [1_000, 2_001], "n": [1, 2]}).cast({"at": pl.Datetime("ns", "UTC")})
    assert gate(times, "CATEGORIES", quarantine=0.5).quarantined == 1
    assert aside(tmp_path)["at"].to_physical().to_list() == [2_001], "to the last digit, or it is not what came"


@pytest.mark.parametrize("memory_mib", [TINY, 512])
def test_the_whole_is_judged_on_the_valid_rows(gate: Gate, tmp_path: Path, memory_mib: int) -> None:
    x = [300] * 20_000 + [5_000_000]
    frame = pl.DataFrame({"x": x, "g": ["a"] * 10_000 + ["b"] * 10_000 + [None]})
    options = {"memory_mib": memory_mib, "row_group_size": 1000}
    assert not gate(frame, "WHOLE", **options).accepted
    # The one row that breaks the checks of the whole is bad by itself, and goes.
    report = gate(frame, "WHOLE", quarantine=0.01, **options)
    assert report.accepted, report.reason
    assert kept(tmp_path).height == 20_000
    # Here a valid row does, and another one is bad.
    other = pl.concat([frame[-1:], frame.with_columns(pl.col("g").fill_null("b"))])
    (tmp_path / "out.parquet").unlink()
    report = gate(other, "WHOLE", quarantine=0.01, **options)
    assert report.failed == ("nulls", "values")
    assert report.quarantined == 0
    assert [case["row"] for case in report.family("values").cases] == [20_001]
    assert not (tmp_path / "out.parquet").exists()


def test_the_same_rows_give_the_same_bytes_however_the_file_was_cut(gate: Gate, tmp_path: Path) -> None:
    frame = spoilt(30_000, 0.2, np.random.default_rng(3))
    results = set()
    for options in ({}, {"row_group_size": 1000}, {"row_group_size": 7001, "compression": "snappy"}):
        report = gate(frame, quarantine=0.5, memory_mib=32, **options)
        assert report.accepted
        results.add(tuple((tmp_path / name).read_bytes() for name in ("out.parquet", "out.quarantine.parquet")))
    assert len(results) == 1


def test_names_of_ours_that_the_file_has_too(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame({"row": [1, 2, 2], "broke": ["a", "b", "b"]})
    report = gate(frame, "OURS", quarantine=0.9)
    assert report.quarantined == 2
    assert aside(tmp_path).rows(named=True)[0] == {"row_": 1, "broke_": ["unique on row"], "row": 2, "broke": "b"}


def test_a_waiver_keeps_every_row_of_a_rejected_batch_and_changes_no_other(gate: Gate, tmp_path: Path) -> None:
    frame = orders(5000).with_columns(price=pl.when(pl.int_range(pl.len()) < 10).then(None).otherwise("price"))
    report = gate(frame, quarantine=0.001, waived=True, memory_mib=TINY, row_group_size=500)
    assert report.waivable
    assert report.quarantined == 0
    assert_frame_equal(kept(tmp_path), frame)
    report = gate(frame, quarantine=0.01, waived=True, memory_mib=TINY, row_group_size=500)
    assert report.accepted
    assert report.quarantined == 10
    assert_frame_equal(kept(tmp_path), frame[10:])


@pytest.mark.parametrize("memory_mib", [TINY, 512])
def test_the_profile_is_of_the_rows_that_are_kept_or_of_all_where_none_are(tmp_path: Path, memory_mib: int) -> None:
    frame = orders(5000).with_columns(price=pl.when(pl.int_range(pl.len()) < 10).then(-1.0).otherwise("price"))
    frame.write_parquet(tmp_path / "landed.parquet", row_group_size=500)

    def profiled(share: float, waived: bool = False) -> Profile:
        made: list[Profiler] = []

        def profiler(columns: Mapping[str, pl.DataType]) -> Profiler:
            made.append(Profiler(columns))
            return made[-1]

        source = Source(name="orders", schema=f"{SCHEMAS}:Orders", quarantine=share)
        out = tmp_path / "out.parquet"
        landed = tmp_path / "landed.parquet"
        check(landed, source, memory_mib=memory_mib, out=out, waived=waived, profiler=profiler)
        return made[-1].profile()

    for share, waived, rows, least in ((0.01, False, 4990, 0.5), (0.001, False, 5000, -1.0), (0.001, True, 5000, -1.0)):
        profile = profiled(share, waived)
        assert (profile.rows, profile.columns["price"].least) == (rows, least)


@pytest.mark.parametrize(("bad", "rows", "share"), [(29, 100, 0.29), (57, 100, 0.57), (3, 1000, 0.003), (1, 10, 0.1)])
def test_exactly_the_share_may_be_set_aside_and_not_a_row_more(
    gate: Gate, tmp_path: Path, bad: int, rows: int, share: float
) -> None:
    def spoilt(count: int) -> pl.DataFrame:
        return orders(rows).with_columns(price=pl.when(pl.int_range(pl.len()) < count).then(-1.0).otherwise("price"))

    rules = {"paid": pl.lit(None, dtype=pl.Float64)}
    assert gate(spoilt(bad).with_columns(**rules), quarantine=share).quarantined == bad
    assert not gate(spoilt(bad + 1).with_columns(**rules), quarantine=share).accepted
    if bad > 1:
        again = pl.when(pl.int_range(pl.len()) < bad).then(-5).otherwise("order")
        assert gate(orders(rows).with_columns(order=again), quarantine=share).quarantined == bad
