"""Too few rows, too many, none, or those of an earlier batch: told against the accepted batches of the same weekday."""

from __future__ import annotations

import numpy as np
import pytest

from ml_platform.batches import DailyBatches, NamedBatches
from ml_platform.gates.declaration import BatchGate, Limits
from ml_platform.gates.history import Accepted
from ml_platform.gates.report import FamilyResult
from ml_platform.gates.volume import judge

from .batches import accepted, day, profile_of, sales

DAYS = DailyBatches(start="2024-01-01")


@pytest.fixture(scope="module")
def weeks() -> list[Accepted]:
    """Four weeks: 1,000 rows or so on working days, 200 or so on Saturdays and Sundays."""
    random = np.random.default_rng(0)
    usual = [200 if number % 7 >= 5 else 1000 for number in range(28)]
    return accepted([sales(number, int(rows * random.normal(1, 0.02))) for number, rows in enumerate(usual)])


def judged(rows: int, history: list[Accepted], *, number: int = 28, gate: BatchGate | None = None) -> FamilyResult:
    return judge(day(number), profile_of(sales(99, rows)), "new", history, "", gate or BatchGate(), DAYS)


@pytest.mark.parametrize(("number", "rows"), [(28, 1010), (28, 930), (33, 205), (34, 190)])
def test_a_day_like_its_weekday_passes(weeks: list[Accepted], number: int, rows: int) -> None:
    assert judged(rows, weeks, number=number).status == "passed"


def test_a_weekend_on_a_working_day_is_too_few_and_the_other_way_round_too_many(weeks: list[Accepted]) -> None:
    few, many = judged(200, weeks, number=28), judged(1000, weeks, number=33)
    assert (few.status, few.codes) == ("failed", ("volume_small",))
    assert (many.status, many.codes) == ("failed", ("volume_large",))
    assert "of 4 accepted Mondays" in few.message
    assert "200 rows, -80% from the usual" in few.message


@pytest.mark.parametrize("kept", [0.1, 0.5])
def test_a_truncated_day_fails(weeks: list[Accepted], kept: float) -> None:
    assert judged(int(1000 * kept), weeks).status == "failed"


def test_batches_that_always_have_the_same_number_of_rows_may_miss_none_of_them() -> None:
    history = accepted([sales(number, 240) for number in range(28)])
    assert judged(239, history).status == "passed"
    assert judged(216, history).status == "failed"


def test_batches_with_other_names_are_compared_with_all(weeks: list[Accepted]) -> None:
    named = [Accepted(batch=f"lot-{one.batch}", content=one.content, profile=one.profile) for one in weeks]
    result = judge("lot-z", profile_of(sales(99, 400)), "new", named, "", BatchGate(), NamedBatches())
    assert result.status == "passed"
    assert "of 28 accepted batches" in result.message


def test_no_rows_fail_without_any_history() -> None:
    empty = judge(day(0), profile_of(sales(0)[:0]), "new", [], "", BatchGate(), DAYS)
    assert (empty.status, empty.codes) == ("failed", ("empty",))


def test_rows_of_an_earlier_batch_fail_by_name(weeks: list[Accepted]) -> None:
    again = judge(day(28), weeks[20].profile, weeks[20].content, weeks, "", BatchGate(), DAYS)
    assert (again.status, again.codes) == ("failed", ("repeated",))
    assert day(20) in again.message
    long_ago = judge(day(28), profile_of(sales(5)), "other", weeks, "2023-05-05", BatchGate(), DAYS)
    assert "2023-05-05" in long_ago.message


def test_with_a_short_history_nothing_is_compared(weeks: list[Accepted]) -> None:
    result = judged(10, weeks[:13])
    assert result.status == "passed"
    assert result.message == "nothing was compared: 13 accepted batches before it, 14 are needed"


def test_limits_are_the_pipelines(weeks: list[Accepted]) -> None:
    assert judged(500, weeks, gate=BatchGate(volume=Limits(warn=4, reject=None))).status == "warned"
    assert judged(500, weeks, gate=BatchGate(volume=Limits(warn=None, reject=None))).status == "passed"


def test_a_distance_is_rounded_down_and_one_row_is_one(weeks: list[Accepted]) -> None:
    few = judged(1, weeks)
    assert few.message.startswith("1 row, -100% from")
    far = float(few.message.rsplit("(", 1)[1].split(" ")[0])
    close = BatchGate(volume=Limits(warn=1.0, reject=far + 0.1))
    told = judged(1, weeks, gate=close)
    assert told.status == "warned"
    assert f"({far:.1f} robust sd)" in told.message
