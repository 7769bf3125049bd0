"""What differs from the accepted batches is rejected and named with figures; what always differs is not."""

from __future__ import annotations

import datetime as dt
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml_platform.gates import drift
from ml_platform.gates.declaration import BatchGate, Limits
from ml_platform.gates.history import Accepted
from ml_platform.gates.report import FamilyResult, sentence

from .batches import FIRST, SOURCE, accepted, day, profile_of, sales

Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def month() -> list[Accepted]:
    """Four weeks of ordinary days, into the next month."""
    return accepted([sales(number) for number in range(10, 38)], first=10)


def judged(frame: pl.DataFrame, history: list[Accepted], **gate: object) -> FamilyResult:
    return drift.judge(profile_of(frame), history, SOURCE, BatchGate(**gate))  # type: ignore[arg-type]


def shuffled(name: str) -> Change:
    return lambda frame: frame.with_columns(frame[name].shuffle(seed=1))


CHANGES: dict[str, tuple[Change, str]] = {
    "a unit": (lambda frame: frame.with_columns(pl.col("price") * 100), "price"),
    "a shift": (lambda frame: frame.with_columns(pl.col("price") + 15), "price"),
    "a sign": (lambda frame: frame.with_columns(-pl.col("tax")), "tax"),
    "nulls": (lambda frame: frame.with_columns(pl.when(pl.col("order") % 20 > 0).then("shop")), "shop"),
    "not-a-number": (
        lambda frame: frame.with_columns(pl.when(pl.col("order") % 10 > 0).then("price").otherwise(np.nan)),
        "price",
    ),
    "one value": (lambda frame: frame.with_columns(price=pl.lit(20.0)), "price"),
    "a new value": (lambda frame: frame.with_columns(pl.col("shop").replace("east", "west")), "shop"),
    "a value gone": (lambda frame: frame.with_columns(pl.col("shop").replace("east", "north")), "shop"),
    "no relation": (shuffled("tax"), "tax"),
    "copies": (lambda frame: pl.concat([frame, frame[:20]]), ""),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_column_that_differs_is_rejected_by_name(name: str, month: list[Accepted]) -> None:
    change, column = CHANGES[name]
    result = judged(change(sales(38)), month)
    assert result.status == "failed", result.message
    assert column in [part for rule in result.broken for part in rule.column.split(", ")]


def test_ordinary_days_pass_though_keys_and_calendars_run_on(month: list[Accepted]) -> None:
    for number in range(38, 68):
        result = judged(sales(number), month)
        assert result.status == "passed", f"day {number}: {result.message}"
        month = [*month[1:], *accepted([sales(number)], first=number)]


def test_other_numbers_of_rows_are_no_drift(month: list[Accepted]) -> None:
    assert judged(sales(38, 60), month).status == "passed"
    assert judged(sales(38, 8000), month).status == "passed"


def test_it_says_the_figure_and_what_is_usual_in_a_sentence(month: list[Accepted]) -> None:
    result = judged(sales(38).with_columns(pl.col("price") * 100), month)
    rule = next(rule for rule in result.broken if rule.code == "drift_mean" and rule.column == "price")
    assert rule.message.startswith("price: mean 2,1")
    assert "usually 2" in rule.message
    assert "over 28 accepted batches (" in rule.message
    assert rule.message.endswith(" robust sd)")
    assert result.message.startswith(result.broken[0].message)
    far = [float(rule.message.rsplit("(", 1)[1].split(" ")[0]) for rule in result.broken]
    assert far == sorted(far, reverse=True)


def test_what_is_not_in_the_history_is_not_learned_from(month: list[Accepted]) -> None:
    def tenfold(number: int) -> pl.DataFrame:
        return sales(number).with_columns(pl.col("price", "tax", "paid") * 10)

    assert judged(tenfold(38), month).status == "failed"
    assert judged(sales(39), month).status == "passed"
    waived = [*month, *accepted([tenfold(38)], first=38)]
    assert judged(tenfold(39), waived).status == "failed", "one that was waived is an exception"
    waived = [*month, *accepted([tenfold(number) for number in (38, 39, 40)], first=38)]
    assert judged(tenfold(41), waived).status == "passed", "three in a row are as it is now"
    assert judged(tenfold(41).with_columns(pl.col("price") * 10), waived).status == "failed"


@pytest.mark.parametrize("outliers", [(5,), (2, 11, 12, 20, 27)])
@pytest.mark.parametrize("wrong", [100.0, 1e6])
def test_a_few_wrong_batches_in_the_history_let_no_others_pass(
    month: list[Accepted], outliers: tuple[int, ...], wrong: float
) -> None:
    spoilt = list(month)
    for place in outliers:
        frame = sales(10 + place).with_columns(pl.col("price", "paid") * wrong)
        spoilt[place : place + 1] = accepted([frame], first=10 + place)
    for change in (pl.col("price") * 3, pl.col("price") * 50, pl.col("price") + 1000, -pl.col("price")):
        result = judged(sales(38).with_columns(change), spoilt)
        assert result.status == "failed"
        assert "price" in {rule.column for rule in result.broken}
    little = profile_of(sales(38).with_columns(pl.col("price") * 1.3))
    for history in (month, spoilt):
        # Of the price by itself: what follows from it would tell of it too.
        assert max(one.distance for one in drift.distances(little, history) if one.code == "mean") > 4.5
    for number in (38, 39, 40):
        assert judged(sales(number), spoilt).status == "passed"


def rain(number: int, rows: int = 400) -> pl.DataFrame:
    """Mostly none, and a flag that is raised now and then."""
    random = np.random.default_rng([7, number])
    fell = np.where(random.random(rows) < 0.8, 0, random.exponential(5, rows))
    return pl.DataFrame({"fell": fell, "flag": random.random(rows) < 0.02})


def test_a_wrong_batch_in_the_history_of_what_is_mostly_nothing_lets_no_others_pass() -> None:
    history = accepted(
        [rain(number).with_columns(pl.col("fell") * (100 if number == 9 else 1)) for number in range(28)]
    )
    assert judged(rain(28), history).status == "passed"
    result = judged(rain(28).with_columns(pl.col("fell") * 20), history)
    assert (result.status, {rule.column for rule in result.broken}) == ("failed", {"fell"})


def test_what_happens_on_some_days_is_no_outlier_where_there_are_few_rows() -> None:
    history = accepted([rain(number, 5) for number in range(28)])
    for number in range(28, 70):
        result = judged(rain(number, 5), history)
        assert result.status == "passed", result.message
        history = [*history[1:], *accepted([rain(number, 5)], first=number)]


def test_what_is_otherwise_once_a_week_is_as_usual() -> None:
    def shop(number: int) -> pl.DataFrame:
        random = np.random.default_rng(number)
        return pl.DataFrame({"sold": random.normal(100 if number % 7 < 6 else 180, 10, 300)})

    history = accepted([shop(number) for number in range(28)])
    assert judged(shop(34), history).status == "passed", "a Sunday"
    assert judged(shop(34).with_columns(pl.col("sold") * 2), history).status == "failed"


def test_with_a_short_history_nothing_is_compared(month: list[Accepted]) -> None:
    result = judged(sales(38).with_columns(-pl.col("price")), month[:13])
    assert result.status == "passed"
    assert result.message == "nothing was compared: 13 accepted batches before it, 14 are needed"


def test_columns_may_have_limits_of_their_own(month: list[Accepted]) -> None:
    bad = profile_of(sales(38).with_columns(note=pl.lit("x"), price=pl.col("price") + 15))
    # The feed's schema knows `price`; tax follows from it.
    wide = replace(SOURCE, drift={"price": Limits(warn=4.5, reject=None)})
    off = replace(SOURCE, drift={"price": None})
    by_price = drift.judge(bad, month, wide, BatchGate())
    unseen = drift.judge(bad, month, off, BatchGate())
    assert "price" in {rule.column for rule in drift.judge(bad, month, SOURCE, BatchGate()).broken}
    assert "price" not in {rule.column for rule in by_price.broken if by_price.status == "failed"}
    assert not any("price" in rule.column.split(", ") for rule in unseen.broken)


def test_limits_of_all_columns_are_the_pipelines(month: list[Accepted]) -> None:
    bad = sales(38).with_columns(pl.col("price") + 15)
    assert judged(bad, month, drift=Limits(warn=4.5, reject=None)).status == "warned"
    assert judged(bad, month, drift=Limits(warn=None, reject=None)).status == "passed"


def test_no_figure_contradicts_its_verdict(month: list[Accepted]) -> None:
    bad = sales(38).with_columns(pl.col("price") + 15)
    far = max(one.distance for one in drift.distances(profile_of(bad), month))
    above, below = math.ceil(far * 10) / 10, math.floor(far * 1000) / 1000
    for reject, status in ((above, "warned"), (below, "failed")):
        result = judged(bad, month, drift=Limits(warn=4.5, reject=reject))
        assert result.status == status
        said = float(result.broken[0].message.rsplit("(", 1)[1].split(" ")[0])
        assert (said >= reject) == (status == "failed"), f"{said} of {far}, limit {reject}"
        assert said == pytest.approx(far, abs=0.1)


def test_one_more_rule_is_told_of_in_the_singular(month: list[Accepted]) -> None:
    bad = sales(38).with_columns(pl.col("price") * 100)
    broken = judged(bad, month).broken
    assert len(broken) > 6, "for this test to say anything"
    assert sentence(broken[:6], [], 400).endswith("; and 1 more rule")
    assert sentence(broken[:7], [], 400).endswith("; and 2 more rules")


def test_a_column_that_is_gone_is_rejected_and_a_new_one_told(month: list[Accepted]) -> None:
    gone, new = judged(sales(38).drop("tax"), month), judged(sales(38).with_columns(extra=pl.col("price") * 7), month)
    renamed = judged(sales(38).rename({"tax": "vat"}), month)
    assert (gone.status, new.status, renamed.status) == ("failed", "warned", "failed")
    assert gone.message == "tax is not there, and was in all 28 accepted batches"
    assert new.message == "extra is there, and was in none of 28 accepted batches"
    assert {rule.code for rule in (*gone.broken, *new.broken)} == {"drift_columns"}
    sometimes = [*month[:27], *accepted([sales(37).drop("tax")], first=37)]
    assert judged(sales(38).drop("tax"), sometimes).status == "passed"
    off = replace(SOURCE, drift={"paid": None})
    assert drift.judge(profile_of(sales(38).drop("paid")), month, off, BatchGate()).status == "passed"


def test_a_column_without_a_value_is_rejected_as_such_whatever_its_type(month: list[Accepted]) -> None:
    for type_ in (pl.Float64(), pl.Null()):
        result = judged(sales(38).with_columns(tax=pl.lit(None, type_)), month)
        assert result.status == "failed"
        assert ("tax", "drift_nulls") in {(rule.column, rule.code) for rule in result.broken}


def test_strange_batches_are_judged_without_an_error(month: list[Accepted]) -> None:
    empty = sales(38).with_columns(price=pl.lit(None, pl.Float64), shop=pl.lit(None, pl.String))
    assert judged(sales(38)[:0], month).status == "passed", "that there are no rows is told by the volume"
    assert judged(sales(38)[:1], month).broken == ()
    assert {"price", "shop"} <= {rule.column for rule in judged(empty, month).broken if rule.code == "drift_nulls"}
    lists = [pl.DataFrame({"list": [[number]] * 20}) for number in range(20)]
    assert judged(lists[0], accepted(lists)).status == "passed"


def test_a_rare_flag_may_be_away_for_a_day() -> None:
    random = np.random.default_rng(0)
    days = [pl.DataFrame({"x": random.normal(size=300), "rare": random.random(300) < 0.02}) for _ in range(29)]
    never = days[28].with_columns(rare=pl.lit(False))
    assert judged(never, accepted(days[:28])).broken == ()


def test_infinite_values_are_told_and_many_rejected(month: list[Accepted]) -> None:
    def infinite(rows: int) -> FamilyResult:
        place = pl.int_range(pl.len())
        endless = pl.when(place % 2 == 0).then(float("inf")).otherwise(float("-inf"))
        return judged(sales(38).with_columns(price=pl.when(place < rows).then(endless).otherwise("price")), month)

    one, many = infinite(1), infinite(4)
    assert (one.status, many.status) == ("warned", "failed")
    assert one.message.startswith("price: 1 of 400 values is infinite, usually none over 28 accepted")
    assert {(rule.column, rule.code) for rule in (*one.broken, *many.broken)} == {("price", "drift_infinite")}


def settled(number: int, fee: float = 7.0, **changed: pl.Expr) -> pl.DataFrame:
    """A fee that never changes, the month, the year with its month, the day as a date, and how long it took."""
    date = FIRST + dt.timedelta(days=number)
    took = np.random.default_rng(number).integers(1, 100, 300)
    return pl.DataFrame(
        {
            "fee": [fee] * 300,
            "month": [date.month] * 300,
            "period": [100 * date.year + date.month] * 300,
            "on": [date] * 300,
            "took": pl.Series(took * 1_000_000).cast(pl.Duration("us")),
        }
    ).with_columns(**changed)


def test_a_constant_that_is_another_one_is_rejected_and_a_calendar_goes_on() -> None:
    history = accepted([settled(number) for number in range(335, 363)], first=335)
    for number in range(363, 398):
        result = judged(settled(number), history)
        assert result.status == "passed", f"{day(number)}: {result.message}"
        history = [*history[1:], *accepted([settled(number)], first=number)]
    once = [*history[:9], *accepted([settled(379, 7000.0)], first=379), *history[10:]]
    for known in (history, once):
        for fee in (7000.0, 0.07, -7.0):
            result = judged(settled(398, fee), known)
            assert (result.status, {rule.column for rule in result.broken}) == ("failed", {"fee"})
    assert judged(settled(398, month=pl.lit(7)), history).status == "failed"


def test_dates_that_do_not_run_on_as_they_do_are_rejected() -> None:
    history = accepted([settled(number) for number in range(28)])
    once = [*history[:20], *accepted([settled(20, on=pl.lit(dt.date(1970, 1, 1)))], first=20), *history[21:]]
    for known in (history, once):
        for wrong in (dt.date(1970, 1, 1), dt.date(2023, 1, 29), dt.date(9999, 12, 31)):
            result = judged(settled(28, on=pl.lit(wrong)), known)
            assert result.status == "failed"
            assert result.message.startswith(f"on: middle of its times {wrong}, usually ")
        assert judged(settled(28), known).status == "passed"
    dates = [replace(one, profile=profile_of(settled(number).select("on"))) for number, one in enumerate(history)]
    assert judged(settled(28 + 60).select("on"), dates).status == "passed", "after two months without a batch"


def test_durations_are_compared_as_numbers_are() -> None:
    history = accepted([settled(number) for number in range(28)])
    result = judged(settled(28, took=pl.col("took") * 1000), history)
    assert (result.status, {rule.column for rule in result.broken}) == ("failed", {"took"})


def labelled(number: int, rows: int = 2000) -> pl.DataFrame:
    """Amounts, and a label that goes together with them, as a Boolean and as 0 and 1; and a rare flag."""
    random = np.random.default_rng([11, number])
    amount = random.gamma(2, 3, rows)
    label = random.random(rows) < 1 / (1 + np.exp(6 - amount))
    return pl.DataFrame(
        {"amount": amount, "label": label, "number": label.astype(np.int64), "rare": random.random(rows) < 0.004}
    )


@pytest.fixture(scope="module")
def labels() -> list[Accepted]:
    return accepted([labelled(number) for number in range(28)])


@pytest.mark.parametrize("name", ["label", "number"])
def test_a_label_of_two_values_that_is_shuffled_or_turned_round_is_rejected(name: str, labels: list[Accepted]) -> None:
    good = labelled(30).select("amount", name)
    by_itself = [
        replace(one, profile=profile_of(labelled(place).select("amount", name))) for place, one in enumerate(labels)
    ]
    turned = good.with_columns((1 - pl.col(name).cast(pl.Int64)).cast(good.schema[name]).alias(name))
    assert judged(good, by_itself).status == "passed"
    for bad in (shuffled(name)(good), turned):
        result = judged(bad, by_itself)
        assert result.status == "failed"
        assert f"amount, {name}" in {rule.column for rule in result.broken}


def test_a_flag_that_is_hardly_ever_raised_is_related_to_nothing(labels: list[Accepted]) -> None:
    by_chance = labelled(30).with_columns(rare=pl.col("amount") > pl.col("amount").quantile(0.999))
    assert judged(by_chance, labels).status == "passed"


def test_the_same_batch_is_told_of_in_the_same_words_in_every_process(month: list[Accepted]) -> None:
    shops = pl.Series(["west", "centre", "river", "hill"] * 100)
    told = judged(sales(38).with_columns(shop=shops), month).message
    code = (
        "import polars as pl\n"
        "from ml_platform_tests.gates.batches import accepted, profile_of, sales, SOURCE\n"
        "from ml_platform.gates import drift\n"
        "from ml_platform.gates.declaration import BatchGate\n"
        "shops = pl.Series(['west', 'centre', 'river', 'hill'] * 100)\n"
        "history = accepted([sales(number) for number in range(10, 38)], first=10)\n"
        "profile = profile_of(sales(38).with_columns(shop=shops))\n"
        "print(drift.judge(profile, history, SOURCE, BatchGate()).message)\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == told
