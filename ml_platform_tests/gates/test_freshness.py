"""Time stamps outside the batch's local day are refused, and a batch that is late is told of."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import polars as pl
import pytest

from ml_platform.batches import DailyBatches, NamedBatches
from ml_platform.gates import freshness
from ml_platform.gates.report import FamilyResult
from ml_platform.pipeline import Source

from .batches import profile_of

DAYS = DailyBatches(start="2024-01-01", timezone="America/New_York")
SOURCE = Source(name="orders", schema="ml_platform_tests.gates.schemas:Orders", time="day")
MIDNIGHT = dt.datetime(2024, 3, 10, 5, tzinfo=dt.UTC)
"""Of 2024-03-10 in New York: a day of 23 hours."""


def judged(column: pl.Series, source: Source = SOURCE, *, landed: dt.datetime | None = None) -> FamilyResult:
    frame = column.alias("day").to_frame()
    within = freshness.within("2024-03-10", source, DAYS, frame.schema)
    return freshness.judge("2024-03-10", profile_of(frame, within=within), source, DAYS, landed)


def hours(*after: float) -> pl.Series:
    return pl.Series([MIDNIGHT + dt.timedelta(hours=hour) for hour in after], dtype=pl.Datetime("us", "UTC"))


def test_all_of_the_local_day_passes() -> None:
    assert judged(hours(0, 5, 22.99)).status == "passed"
    assert judged(hours(0, 5, 22.99).dt.convert_time_zone("Asia/Tokyo")).status == "passed"


@pytest.mark.parametrize("outside", [-0.01, 23])
def test_a_row_of_another_day_fails_with_its_count(outside: float) -> None:
    result = judged(hours(1, 2, outside, outside))
    assert (result.status, result.codes, result.failures) == ("failed", ("outside_its_day",), 2)
    assert "2 of 4 rows are not of 2024-03-10" in result.message
    assert "America/New_York" in result.message


def test_a_file_in_the_wrong_zone_fails() -> None:
    local = hours(*range(23)).dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    assert judged(local).status == "passed", "a clock without zone is the local one"
    assert judged(local.dt.replace_time_zone("UTC")).failures == 4, "and is not UTC"


def test_dates_are_local() -> None:
    assert judged(pl.Series([dt.date(2024, 3, 10)])).status == "passed"
    assert judged(pl.Series([dt.date(2024, 3, 10), dt.date(2024, 3, 11)])).failures == 1


def test_without_having_counted_it_fails_all_the_same() -> None:
    profile = profile_of(hours(1, 30).alias("day").to_frame())
    result = freshness.judge("2024-03-10", profile, SOURCE, DAYS)
    assert (result.status, result.failures) == ("failed", 0)
    assert "goes from 2024-03-10 06:00:00 to 2024-03-11 11:00:00 UTC" in result.message


def test_a_column_that_is_no_time_fails() -> None:
    result = judged(pl.Series(["2024-03-10"]))
    assert (result.status, result.codes) == ("failed", ("no_time",))


def test_a_late_batch_is_told_and_accepted() -> None:
    source = replace(SOURCE, late_hours=6)
    end = MIDNIGHT + dt.timedelta(hours=23)
    in_time = judged(hours(1), source, landed=end + dt.timedelta(hours=5))
    late = judged(hours(1), source, landed=end + dt.timedelta(hours=7.5))
    assert in_time.status == "passed"
    assert (late.status, late.codes, late.passed) == ("warned", ("late",), True)
    assert "7.5 hours" in late.message
    assert judged(hours(30), source, landed=end + dt.timedelta(hours=9)).codes == ("outside_its_day", "late")


def test_nothing_is_checked_where_batches_are_not_days_or_no_column_is_named() -> None:
    profile = profile_of(hours(100).alias("day").to_frame())
    assert freshness.judge("lot-1", profile, SOURCE, NamedBatches()).status == "passed"
    assert freshness.judge("2024-03-10", profile, replace(SOURCE, time=None), DAYS).status == "passed"
    assert freshness.within("lot-1", SOURCE, NamedBatches(), {"day": pl.Date()}) is None
