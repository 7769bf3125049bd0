"""What a gate writes where a person has waived its rules, and what nobody can waive."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from ml_platform.errors import RefusedError
from ml_platform.gates.report import GateReport
from ml_platform.gates.schema import check
from ml_platform.gates.waivers import Waiver, Waivers, expiry, iso
from ml_platform.pipeline import Source
from ml_platform.store import Store, layout
from ml_platform_tests.gates.conftest import SCHEMAS, orders

NOW = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def gated(frame: pl.DataFrame, folder: Path, schema: str = "Orders", memory_mib: int = 512) -> tuple[GateReport, Path]:
    frame.write_parquet(folder / "landed.parquet", row_group_size=1000)
    source = Source(name="orders", schema=f"{SCHEMAS}:{schema}")
    out = folder / "out.parquet"
    report = check(folder / "landed.parquet", source, memory_mib=memory_mib, out=out, waived=True)
    return report, out


def broken(rows: int = 5000) -> pl.DataFrame:
    """Rows that break a rule of each family of values."""
    n = pl.int_range(pl.len())
    return orders(rows).with_columns(
        pl.when(n == 3).then(None).otherwise(pl.col("price")).alias("price"),
        pl.when(n == rows - 1).then(pl.lit("west")).otherwise(pl.col("shop")).alias("shop"),
        pl.when(n == 7).then(0).otherwise(pl.col("order")).alias("order"),
        pl.when(n == 9).then(1e6).otherwise(pl.col("paid")).alias("paid"),
    )


def test_every_row_is_written_and_the_report_says_what_it_always_says(tmp_path: Path) -> None:
    frame = broken()
    report, out = gated(frame, tmp_path)
    assert not report.accepted
    assert report.waivable
    assert set(report.failed) == {"nulls", "values", "unique", "rules"}
    assert pl.read_parquet(out).equals(frame)


def test_a_large_batch_is_written_whole_too(tmp_path: Path) -> None:
    frame = broken(60_000)
    _, out = gated(frame, tmp_path, memory_mib=64)
    assert pl.read_parquet(out).equals(frame)


@pytest.mark.parametrize(
    "spoilt",
    [orders().drop("shop"), orders().with_columns(pl.col("order").cast(pl.String)), orders(0)],
    ids=["a column is missing", "a column is of another type", "no rows"],
)
def test_what_is_not_of_the_declared_columns_and_types_cannot_be_waived(tmp_path: Path, spoilt: pl.DataFrame) -> None:
    report, out = gated(spoilt, tmp_path)
    assert not report.accepted
    assert not report.waivable
    assert not out.exists()


def waiver(**changes: str) -> Waiver:
    fields = {"stage": "validated_batch", "batch": "lot-1", "data_version": "v1", "by": "Ada", "reason": "it is right"}
    return Waiver(**{"pipeline": "tiny", "when": iso(NOW), **fields, **changes})


def test_a_waiver_holds_for_one_data_version_until_it_is_revoked(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", cache=tmp_path / "cache")
    given = waiver()
    Waivers(store, "tiny", NOW).add(given)
    other_machine = Waivers(Store(tmp_path / "store", cache=tmp_path / "elsewhere"), "tiny", NOW)
    assert other_machine.standing("validated_batch", "lot-1", "v1") == given
    assert other_machine.standing("validated_batch", "lot-1", "v2") is None
    assert other_machine.standing("validated_batch", "lot-2", "v1") is None
    assert Waivers(store, "other", NOW).standing("validated_batch", "lot-1", "v1") is None
    other_machine.revoke(given, by="Bo", reason="it was not")
    later = Waivers(store, "tiny", NOW)
    assert later.standing("validated_batch", "lot-1", "v1") is None
    (entry,) = later.entries()
    assert entry.decision == given
    assert entry.revocation is not None
    assert (entry.revocation.by, entry.revocation.reason) == ("Bo", "it was not")
    again = waiver(reason="it is right after all")
    later.add(again)
    assert later.standing("validated_batch", "lot-1", "v1") == again


def test_a_waiver_ends_when_it_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", cache=tmp_path / "cache")
    Waivers(store, "tiny", NOW).add(waiver(expires=expiry("2026-02-01", NOW)))
    last_moment = dt.datetime(2026, 2, 1, 23, 59, 59, tzinfo=dt.UTC)
    assert Waivers(store, "tiny", last_moment).standing("validated_batch", "lot-1", "v1") is not None
    after = Waivers(store, "tiny", last_moment + dt.timedelta(seconds=1))
    assert after.standing("validated_batch", "lot-1", "v1") is None


def test_an_end_is_read_as_people_write_it() -> None:
    assert expiry(None, NOW) == ""
    assert expiry("36h", NOW) == "2026-02-02T00:00:00+00:00"
    assert expiry("30d", NOW) == "2026-03-02T12:00:00+00:00"
    assert expiry("2026-01-31", NOW) == "2026-02-01T00:00:00+00:00"
    for wrong in ("soon", "0d", "30", "2026-02-30", "2026-01-30"):
        with pytest.raises(RefusedError):
            expiry(wrong, NOW)


def test_in_doubt_the_door_stays_shut(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", cache=tmp_path / "cache")
    given = waiver()
    Waivers(store, "tiny", NOW).add(given)
    (path,) = (tmp_path / "store" / layout.waivers("tiny")).rglob("*.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "by": "somebody else"}))
    assert Waivers(store, "tiny", NOW).standing("validated_batch", "lot-1", "v1") is None
    path.unlink()
    Waivers(store, "tiny", NOW).add(given)
    (path.parent / "zzz-0.json").write_text("{}")  # it may have been a revocation
    assert Waivers(store, "tiny", NOW).standing("validated_batch", "lot-1", "v1") is None
