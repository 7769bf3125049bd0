"""A profile says what a batch looks like: the same bytes for the same rows, and of two halves what there is of both."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.gates.drift import distances
from ml_platform.gates.profile import SAMPLE, Profile, Profiler, Within
from ml_platform.gates.schema import check
from ml_platform.pipeline import Source

from .batches import accepted, profile_of, sales
from .conftest import orders


def test_says_what_is_in_the_columns() -> None:
    frame = pl.DataFrame(
        {
            "x": [1.5, -2.0, 0.0, None, float("nan"), float("inf")],
            "kind": ["a", "b", "a", None, "a", "b"],
            "on": [True, False, True, None, True, True],
            "at": [dt.datetime(2024, 1, 1, hour, tzinfo=dt.UTC) for hour in range(6)],
            "list": [[1], None, [2, 3], [], [4], [5]],
        }
    )
    profile = profile_of(frame)
    x, kind, on, at = (profile.columns[name] for name in ("x", "kind", "on", "at"))
    assert (profile.rows, profile.rows_sketched, profile.copies) == (6, 6, 0)
    assert (x.nulls, x.numbers.count, x.numbers.zeros, x.numbers.negatives, x.numbers.fractions) == (2, 3, 1, 1, 1)
    assert x.numbers.mean == pytest.approx(-0.5 / 3)
    assert x.numbers.std == pytest.approx(np.std([1.5, -2, 0], ddof=1))
    assert (x.least, x.most) == (None, None), "an infinite value has no place in JSON"
    assert kind.items.counts == (("a", 3), ("b", 2))
    assert (kind.nulls, kind.numbers.mean, kind.items.distinct_count) == (1, 1.0, 2)
    assert on.items.counts == (("1", 4), ("0", 1))
    assert at.numbers.most == 5 * 3600, "a time is known by its second of the day"
    assert at.least == dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp()
    assert (profile.columns["list"].kind, profile.columns["list"].nulls) == ("other", 1)


def test_the_same_rows_give_the_same_bytes_however_they_are_cut() -> None:
    frame = sales(0, 5000)
    whole = profile_of(frame).to_json()
    assert profile_of(frame).to_json() == whole
    assert profile_of(frame[:1], frame[1:1700], frame[1700:]).to_json() == whole
    assert profile_of(frame.reverse()).to_json() != whole
    read = Profile.from_json(whole)
    assert read == profile_of(frame)
    assert read.to_json() == whole
    json.loads(whole, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert len(whole) < 20_000


def test_of_two_halves_merged_is_that_of_the_whole() -> None:
    frame = sales(3, 6000)
    whole, merged = profile_of(frame), profile_of(frame[:2500]).merge(profile_of(frame[2500:]))
    assert merged.rows == whole.rows
    for name, column in whole.columns.items():
        both = merged.columns[name]
        assert (both.nulls, both.least, both.most, both.kind) == (column.nulls, column.least, column.most, column.kind)
        assert both.numbers.mean == pytest.approx(column.numbers.mean)
        assert both.numbers.std == pytest.approx(column.numbers.std)
        assert both.items.distinct_count == pytest.approx(column.items.distinct_count, rel=0.02)
    assert merged.columns["shop"].items == whole.columns["shop"].items
    ranks = [0.05, 0.5, 0.95]
    values = np.sort(frame["price"].to_numpy())
    for rank, value in zip(ranks, merged.columns["price"].numbers.quantiles(ranks), strict=True):
        assert np.searchsorted(values, value) / len(values) == pytest.approx(rank, abs=0.01)
    np.testing.assert_allclose(merged.pairs.correlation, whole.pairs.correlation, atol=1e-5)
    np.testing.assert_allclose(merged.pairs.count, whole.pairs.count)
    np.testing.assert_allclose(merged.pairs.rank_correlation, whole.pairs.rank_correlation, atol=0.05)


def test_columns_of_two_types_are_not_merged() -> None:
    one, other = (profile_of(pl.DataFrame({"x": values})) for values in ([1, 2], ["a", "b"]))
    with pytest.raises(ValueError, match="Int64 here and String there"):
        one.merge(other)


def test_large_batches_are_sampled_evenly_and_counted_in_full() -> None:
    rows = 3 * SAMPLE
    frame = pl.DataFrame({"x": np.arange(rows, dtype=np.float64), "gone": pl.Series([None, 1] * (rows // 2))})
    profile = profile_of(frame[:70_001], frame[70_001:200_000], frame[200_000:])
    x = profile.columns["x"]
    assert profile.rows == rows
    assert SAMPLE / 2 <= profile.rows_sketched <= SAMPLE
    assert (x.least, x.most, profile.columns["gone"].nulls) == (0, rows - 1, rows // 2)
    assert x.numbers.mean == pytest.approx(rows / 2, rel=0.001)
    assert profile.copies is None, "of a sample it is not known which rows are copies"
    assert profile_of(frame).to_json() == profile.to_json()


def test_correlations_are_those_of_the_rows_that_have_both() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=2000)
    y = -x + random.normal(size=2000) / 2
    frame = pl.DataFrame({"x": x, "y": np.where(random.random(2000) < 0.3, np.nan, y), "same": np.ones(2000)})
    both = frame.filter(pl.col("y").is_not_nan())
    pairs = profile_of(frame).pairs
    assert pairs.correlation[0, 1] == pytest.approx(np.corrcoef(both["x"], both["y"])[0, 1], abs=1e-5)
    assert pairs.rank_correlation[0, 1] == pytest.approx(
        both.select(pl.corr("x", "y", method="spearman")).item(), abs=0.01
    )
    assert pairs.correlation[0, 2] == 0, "nothing goes together with what does not vary"
    assert pairs.count[0].tolist() == [2000, both.height, 2000]


def test_rows_outside_the_day_are_counted() -> None:
    frame = sales(0)
    end = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC).timestamp()
    within = Within(column="at", start=end - 12 * 3600, end=end)
    assert profile_of(frame[:100], frame[100:], within=within).outside == int((frame["at"].dt.hour() >= 12).sum())
    assert profile_of(frame).outside is None


def test_a_batch_without_rows_has_a_profile() -> None:
    profiler = Profiler(sales(0).schema)
    profiler.add(sales(0)[:0])
    profile = profiler.profile()
    assert profile.rows == 0
    assert Profile.from_json(profile.to_json()) == profile
    assert profile.merge(profile_of(sales(0))).rows == 400


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-310, 1e18, 1e30, 1e37, 1e154, 1.7e308])
def test_numbers_of_any_size_give_a_profile_that_can_be_kept_merged_and_compared(size: float) -> None:
    def large(number: int) -> pl.DataFrame:
        signs = np.random.default_rng(number).normal(size=400).clip(-3, 3) / 3
        return sales(number).with_columns(
            large=signs * size, most=pl.when(pl.int_range(400) < 3).then(size).otherwise("price")
        )

    profile = profile_of(large(0), large(1))
    assert Profile.from_json(profile.to_json()) == profile
    both = profile.merge(profile)
    assert Profile.from_json(both.to_json()) == both
    assert profile.columns["large"].most == pytest.approx(size, rel=0.5)
    history = accepted([large(number) for number in range(8)])
    for frame in (large(9), sales(9).with_columns(large=pl.lit(0.5), most="price")):
        distances(profile_of(frame), history)
    sentinel = distances(profile_of(large(9)), accepted([sales(n).with_columns(most="price") for n in range(8)]))
    if size > 1:
        assert {one.column for one in sentinel if one.distance > 8} >= {"most"}


def test_large_numbers_go_together_as_small_ones_do() -> None:
    frame = sales(0)
    large = frame.with_columns(pl.col("price", "tax") * 1e30)
    a, b = profile_of(frame).pairs, profile_of(large).pairs
    np.testing.assert_allclose(b.correlation, a.correlation, atol=1e-5)


def test_an_infinite_value_leaves_no_ends_however_the_rows_are_cut() -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0, float("inf"), 3.0]})
    assert profile_of(frame[:2], frame[2:]).to_json() == profile_of(frame).to_json()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1.7e308, -1.7e308, float("inf"), 1e31])
def test_a_number_that_the_schema_forbids_is_rejected_however_large_and_its_batch_has_a_profile(
    value: float, tmp_path: Path
) -> None:
    few = pl.int_range(pl.len()) < 3
    orders().with_columns(price=pl.when(few).then(value).otherwise("price")).write_parquet(tmp_path / "landed.parquet")
    source = Source(name="orders", schema="ml_platform_tests.gates.schemas:Orders")
    profilers: list[Profiler] = []

    def profiler(columns: Mapping[str, pl.DataType]) -> Profiler:
        profilers.append(Profiler(columns))
        return profilers[-1]

    report = check(tmp_path / "landed.parquet", source, memory_mib=512, out=tmp_path / "out", profiler=profiler)
    assert report.failed == ("values", "rules") if value < 0 else report.failed == ("values",)
    assert report.family("values").failures == 3
    profile = profilers[-1].profile()
    assert Profile.from_json(profile.to_json()) == profile


def test_a_sample_of_wide_rows_is_the_same_however_they_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = sales(0, 12_345)
    monkeypatch.setattr("ml_platform.gates.profile.SAMPLE_BYTES", 200_000)
    whole = profile_of(frame)
    assert whole.rows_sketched < 4000
    assert profile_of(*(frame[start : start + 777] for start in range(0, frame.height, 777))) == whole
    assert profile_of(*(frame[start : start + 61] for start in range(0, frame.height, 61))) == whole


def test_long_texts_are_not_kept_in_memory() -> None:
    code = (
        "import resource\n"
        "import polars as pl\n"
        "from ml_platform.gates.profile import Profiler\n"
        "def peak():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "def chunk(number):\n"
        "    head = pl.int_range(200, eager=True).cast(pl.String) + str(number)\n"
        "    return pl.DataFrame({'text': head + 'x' * 100_000})\n"
        "profiler = Profiler(chunk(0).schema)\n"
        "profiler.add(chunk(0))\n"
        "before = peak()\n"
        "for number in range(30):\n"
        "    profiler.add(chunk(number))\n"
        "print(peak() - before)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert int(told.stdout) < 200, "MiB, of 600 that came"


def test_keys_of_many_digits_are_told_apart() -> None:
    frame = pl.DataFrame({"key": pl.int_range(10**13, 10**13 + 60, eager=True)})
    assert profile_of(frame).columns["key"].items.distinct_count == 60
