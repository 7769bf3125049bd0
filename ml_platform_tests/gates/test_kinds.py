"""A column that changes its type is told as that, whatever its type was and is."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import polars as pl
import pytest

from ml_platform.gates import drift, kinds
from ml_platform.gates.declaration import BatchGate, Limits
from ml_platform.gates.history import Accepted
from ml_platform.gates.report import FamilyResult

from .batches import SOURCE, accepted, profile_of, sales

VALUES: dict[str, pl.Expr] = {
    "text": pl.col("shop"),
    "number": pl.col("price").round().cast(pl.Int64),
    "Datetime": pl.col("at"),
    "Date": pl.col("at").dt.date(),
    "Duration": pl.col("price") * dt.timedelta(seconds=1),
    "List(Float64)": pl.concat_list("price"),
}


def of(sort: str, number: int) -> pl.DataFrame:
    return sales(number).with_columns(kind=VALUES[sort])


def judged(frame: pl.DataFrame, history: list[Accepted], **limits: Limits | None) -> FamilyResult:
    return kinds.judge(profile_of(frame), history, replace(SOURCE, drift=limits), BatchGate())


@pytest.mark.parametrize("now", VALUES)
@pytest.mark.parametrize("then", VALUES)
def test_another_type_is_rejected_as_that_alone(then: str, now: str) -> None:
    history = accepted([of(then, number) for number in range(16)])
    result = judged(of(now, 16), history)
    if then == now:
        assert result.status != "failed", result.message
        return
    assert (result.status, [rule.code for rule in result.broken]) == ("failed", ["drift_type"]), result.message
    assert (
        f"kind was {then} in the accepted batches, is {profile_of(of(now, 16)).columns['kind'].type}" in result.message
    )
    drift.distances(profile_of(of(now, 16)), history)  # however it is asked


def test_in_a_history_of_several_types_the_batches_of_the_same_type_count() -> None:
    history = accepted([of("text" if number % 2 else "number", number) for number in range(16)])
    for sort in ("text", "number"):
        assert judged(of(sort, 16), history).status != "failed"
    assert judged(of("number", 16).with_columns(pl.col("kind") * 100), history).status == "failed"
    assert "kind was number or text in the" in judged(of("Date", 16), history).message


def test_the_width_of_a_number_and_a_column_without_values_are_no_other_type() -> None:
    history = accepted([of("number", number) for number in range(16)])
    for type_ in (pl.Int32, pl.Float32):
        assert judged(of("number", 16).cast({"kind": type_}), history).status != "failed"
    empty = accepted([of("number", number).with_columns(kind=pl.lit(None)) for number in range(16)])
    for result in (judged(of("text", 16), empty), judged(of("text", 16).with_columns(kind=pl.lit(None)), history)):
        assert "drift_type" not in [rule.code for rule in result.broken]


def test_other_limits_of_the_column_are_kept() -> None:
    history = accepted([of("text", number) for number in range(16)])
    assert judged(of("number", 16), history, kind=None).status == "passed"
    assert judged(of("number", 16), history, kind=Limits(warn=4, reject=None)).status == "warned"
    worse = of("number", 16).with_columns(pl.col("price") * 100)
    assert {rule.code for rule in judged(worse, history).broken} > {"drift_type"}
    assert judged(of("number", 4), history[:4]).status == "passed", "nothing is compared yet"
