"""What concerns the batch as a whole holds over all of its chunks: keys, means, windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.gates.unique import KeyWatch, candidates, repeated

from .conftest import Gate, orders

TINY = 1
"""MiB; a file of a few ten thousand rows then takes many chunks."""


def test_a_key_that_comes_again_in_another_chunk(gate: Gate, tmp_path: Path) -> None:
    frame = orders(40_000)
    frame = pl.concat([frame, frame[17:18], frame[39_000:39_001]])
    report = gate(frame, memory_mib=TINY, row_group_size=1000)
    assert report.failed == ("unique",), report.reason
    unique = report.family("unique")
    assert unique.failures == 4
    assert unique.codes == ("duplicates",)
    assert [case["row"] for case in unique.cases] == [17, 39_000, 40_000, 40_001]
    assert unique.cases[0]["value"] == {"order": 17, "day": "2024-01-01"}
    assert not (tmp_path / "out.parquet").exists()


def test_part_of_a_key_may_come_again(gate: Gate) -> None:
    frame = orders(20_000)
    other_day = frame.with_columns(pl.col("day").dt.offset_by("1d"))
    assert gate(pl.concat([frame, other_day]), memory_mib=TINY, row_group_size=1000).accepted


def test_the_same_report_in_one_chunk_and_in_many(gate: Gate) -> None:
    n = pl.int_range(pl.len())
    frame = orders(30_000).with_columns(
        price=pl.when(n % 9_000 == 8_999).then(-1.0).otherwise("price"),
        order=pl.when(n == 20_000).then(5).otherwise("order"),
    )
    assert gate(frame, row_group_size=1000) == gate(frame, memory_mib=TINY, row_group_size=1000)


def test_checks_of_the_whole_batch_do_not_judge_chunks(gate: Gate) -> None:
    # The mean of all rows is 500; of the last chunks alone it is over 1,000, and "a" is in the first chunks only.
    x = np.concatenate([np.full(20_000, 300), np.full(5_000, 1300)])
    frame = pl.DataFrame({"x": x, "g": np.repeat(["a", "b"], [20_000, 5_000])})
    report = gate(frame, "WHOLE", memory_mib=TINY, row_group_size=1000)
    assert report.accepted, report.reason


@pytest.mark.parametrize("memory_mib", [TINY, 512])
def test_checks_of_the_whole_batch_fail_as_a_whole(gate: Gate, memory_mib: int, tmp_path: Path) -> None:
    x = np.full(25_000, 900)
    x[[3, 24_999]] = 5_000_000
    report = gate(pl.DataFrame({"x": x, "g": "a"}), "WHOLE", memory_mib=memory_mib, row_group_size=1000)
    values = report.family("values")
    assert {(rule.check, rule.column, rule.failures) for rule in values.broken} == {
        ("mean_below_1000", "x", 0),
        ("no_peak", "x", 2),
        ("unique_values_eq(['a', 'b'])", "g", 0),
    }
    assert [case["row"] for case in values.cases] == [3, 24_999]
    assert not (tmp_path / "out.parquet").exists()


def test_keys_that_do_not_fit_into_memory_are_found_and_cleaned_up(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).permutation(60_000)
    frame = pl.DataFrame({"k": keys, "t": keys.astype(str)})
    frame = pl.concat([frame, frame[[5, 70, 70]]])
    with KeyWatch(("k", "t"), memory_bytes=1 << 17, folder=tmp_path) as watch:
        for chunk in frame.iter_slices(7_000):
            watch.add(chunk)
        suspects, rows = watch.suspects()
        assert rows == 5
        assert list(tmp_path.iterdir())
        starts = range(0, frame.height, 7_000)
        parts = zip(starts, frame.iter_slices(7_000), strict=True)
        found = repeated(candidates(f, np.arange(s, s + f.height), watch.columns, suspects) for s, f in parts)
        assert sorted(found[1]) == [5, 70, 60_000, 60_001, 60_002]
    assert not list(tmp_path.iterdir())


def test_two_keys_of_one_hash_are_no_duplicates(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def clashing(frame: pl.DataFrame, columns: tuple[str, ...]) -> np.ndarray:
        return np.full(frame.height, 7, dtype=np.uint64)

    monkeypatch.setattr("ml_platform.gates.unique.hashes", clashing)
    frame = orders(20_000)
    assert gate(frame, memory_mib=TINY, row_group_size=1000).accepted
    report = gate(pl.concat([frame, frame[17:18]]), memory_mib=TINY, row_group_size=1000)
    assert report.failed == ("unique",)
    assert [case["row"] for case in report.family("unique").cases] == [17, 20_000]


def test_zero_and_minus_zero_are_one_key_and_so_are_nulls(tmp_path: Path) -> None:
    frame = pl.DataFrame({"k": [0.0, -0.0, None, None, 1.0, float("nan"), float("nan")]})
    with KeyWatch(("k",), memory_bytes=1 << 20, folder=tmp_path) as watch:
        watch.add(frame)
        suspects, _ = watch.suspects()
        _, rows = repeated([candidates(frame, np.arange(frame.height), watch.columns, suspects)])
        assert len(rows) == frame["k"].is_duplicated().sum() == 6
