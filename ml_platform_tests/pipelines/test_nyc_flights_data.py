"""The real data: all of it lands, all of it passes its schema, and nonsense does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandera.errors
import polars as pl
import pytest

from ml_platform.pipelines.nyc_flights import schema
from ml_platform.pipelines.nyc_flights.data import sample
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

MODELS = {"flights": schema.Flights, "weather": schema.Weather, "planes": schema.Planes}


@pytest.fixture(scope="module")
def tables() -> dict[tuple[str, str | None], pl.DataFrame]:
    """Every table to land, by feed and day."""
    frames = {}
    for feed, batch, table in sample():
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frames[feed, batch] = frame
    return frames


def test_every_day_brings_flights_and_weather_and_nothing_is_lost(tables: dict[Any, pl.DataFrame]) -> None:
    assert Counter(feed for feed, _ in tables) == {"flights": 181, "weather": 181, "planes": 1}
    days = sorted({day for _, day in tables if day})
    assert (days[0], days[-1]) == ("2013-01-01", "2013-06-30")
    assert all(PIPELINE.batches.accepts(day) for day in days)
    assert sum(frame.height for (feed, _), frame in tables.items() if feed == "flights") == 166_158
    assert sum(frame.height for (feed, _), frame in tables.items() if feed == "weather") == 13_014


def test_all_real_days_pass(tables: dict[Any, pl.DataFrame]) -> None:
    # Rules are about rows and days, so a few days at a time would break `one_day`: every fourth day is enough here,
    # and the data gate checks all of them when they land.
    for (feed, _), frame in [*list(tables.items())[::4], (("planes", None), tables["planes", None])]:
        MODELS[feed].validate(frame, lazy=True)


def test_a_flight_finds_the_weather_of_its_hour_in_its_own_batch(tables: dict[Any, pl.DataFrame]) -> None:
    lacking = sum(
        frame.join(tables["weather", day], on=["origin", "time_hour"], how="anti").height
        for (feed, day), frame in tables.items()
        if feed == "flights"
    )
    # As many as lack it over all days together: the weather stations missed those hours.
    assert lacking == 97


def _changed(frame: pl.DataFrame, column: str, value: Any) -> pl.DataFrame:
    """The first row's value replaced."""
    first = pl.int_range(pl.len()) == 0
    return frame.with_columns(
        pl.when(first).then(pl.lit(value, frame.schema[column])).otherwise(pl.col(column)).alias(column)
    )


@pytest.mark.parametrize(
    ("feed", "column", "value"),
    [
        ("flights", "origin", "SFO"),
        ("flights", "dest", "EWR"),
        ("flights", "carrier", "united"),
        ("flights", "distance", 0),
        ("flights", "arr_time", 1260),
        ("flights", "sched_arr_time", 2500),
        ("flights", "hour", 4),
        ("flights", "day", 2),
        ("flights", "month", 13),
        ("flights", "dep_time", None),
        ("flights", "flight", None),
        ("flights", "air_time", -1),
        ("weather", "humid", 101.0),
        ("weather", "temp", -400.0),
        ("weather", "wind_dir", 361.0),
        ("weather", "precip", -0.1),
        ("weather", "hour", 23),
        ("weather", "dewp", 99.0),
        ("planes", "tailnum", None),
        ("planes", "year", 1850.0),
        ("planes", "seats", -1),
    ],
)
def test_nonsense_is_caught(tables: dict[Any, pl.DataFrame], feed: str, column: str, value: Any) -> None:
    frame = tables[feed, None if feed == "planes" else "2013-01-01"]
    with pytest.raises(pandera.errors.SchemaErrors):
        MODELS[feed].validate(_changed(frame, column, value), lazy=True)


@pytest.mark.parametrize("feed", ["flights", "weather", "planes"])
def test_a_row_twice_is_caught(tables: dict[Any, pl.DataFrame], feed: str) -> None:
    frame = tables[feed, None if feed == "planes" else "2013-01-01"]
    with pytest.raises(pandera.errors.SchemaErrors):
        MODELS[feed].validate(pl.concat([frame, frame.head(1)]), lazy=True)


def test_two_days_in_one_batch_are_caught(tables: dict[Any, pl.DataFrame]) -> None:
    both = pl.concat([tables["flights", "2013-01-01"], tables["flights", "2013-01-02"]])
    with pytest.raises(pandera.errors.SchemaErrors):
        schema.Flights.validate(both, lazy=True)
