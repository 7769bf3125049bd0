"""What the features of a flight say, on a handful of hand-made flights."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Rows = list[dict[str, Any]]
Build = Callable[..., Rows]

FLIGHTS = (
    "batch string, year int, month int, day int, dep_time int, sched_dep_time int, dep_delay int, arr_time int, "
    "sched_arr_time int, arr_delay int, carrier string, flight int, tailnum string, origin string, dest string, "
    "air_time int, distance int, hour int, minute int, time_hour timestamp"
)
WEATHER = (
    "batch string, origin string, year long, month long, day long, hour long, temp double, dewp double, humid double, "
    "wind_dir double, wind_speed double, wind_gust double, precip double, pressure double, visib double, "
    "time_hour timestamp"
)
PLANES = (
    "tailnum string, year double, type string, manufacturer string, model string, engines long, seats long, "
    "speed double, engine string"
)
TEN = dt.datetime(2013, 1, 1, 15, tzinfo=dt.UTC)
"""Ten o'clock in New York."""


def flight(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A flight from Newark to Houston on New Year's Day, 20 minutes late."""
    row = {
        "batch": "2013-01-01", "year": 2013, "month": 1, "day": 1,
        "dep_time": 1020, "sched_dep_time": 1015, "dep_delay": 5,
        "arr_time": 1330, "sched_arr_time": 1310, "arr_delay": 20,
        "carrier": "UA", "flight": number, "tailnum": "N1", "origin": "EWR", "dest": "IAH",
        "air_time": 200, "distance": 1400, "hour": 10, "minute": 15, "time_hour": TEN,
    }  # fmt: skip
    assert not set(changes) - set(row)
    return row | changes


def weather(**changes: Any) -> dict[str, Any]:
    """Newark's weather at ten on New Year's Day."""
    row = {
        "batch": "2013-01-01", "origin": "EWR", "year": 2013, "month": 1, "day": 1, "hour": 10,
        "temp": 40.0, "dewp": 30.0, "humid": 60.0, "wind_dir": 270.0, "wind_speed": 12.0, "wind_gust": None,
        "precip": 0.1, "pressure": None, "visib": 10.0, "time_hour": TEN,
    }  # fmt: skip
    assert not set(changes) - set(row)
    return row | changes


def plane(tailnum: str = "N1", **changes: Any) -> dict[str, Any]:
    """An Airbus of 1999."""
    row = {
        "tailnum": tailnum, "year": 1999.0, "type": "Fixed wing multi engine", "manufacturer": "AIRBUS INDUSTRIE",
        "model": "A320-214", "engines": 2, "seats": 182, "speed": None, "engine": "Turbo-fan",
    }  # fmt: skip
    assert not set(changes) - set(row)
    return row | changes


@pytest.fixture
def build(spark: SparkSession) -> Build:
    """Features of flights, by flight number."""
    from ml_platform.pipelines.nyc_flights.features import build as function

    def build(flights: Rows, hours: Rows | None = None, planes: Rows | None = None) -> Rows:
        frames = {
            "flights": _frame(spark, flights, FLIGHTS),
            "weather": _frame(spark, [weather()] if hours is None else hours, WEATHER),
        }
        references = {"planes": _frame(spark, [plane()] if planes is None else planes, PLANES)}
        rows = function(spark, frames, references).collect()
        return sorted((row.asDict() for row in rows), key=lambda row: (row["batch"], row["flight"], row["dep_minute"]))

    return build


def _frame(spark: SparkSession, rows: Rows, schema: str) -> Any:
    names = [column.split()[0] for column in schema.split(", ")]
    return spark.createDataFrame([tuple(row[name] for name in names) for row in rows], schema)


def test_a_flight_has_schedule_route_weather_and_plane(build: Build) -> None:
    (row,) = build([flight()])
    assert {name: row[name] for name in PIPELINE.features.columns} == {
        "dep_minute": 10 * 60 + 15,
        "arr_minute": 13 * 60 + 10,
        "minutes": 175,
        "distance": 1400,
        "departures_in_hour": 1,
        "temp": 40.0,
        "dewp": 30.0,
        "humid": 60.0,
        "wind_dir": 270.0,
        "wind_speed": 12.0,
        "wind_gust": None,
        "precip": 0.1,
        "pressure": None,
        "visib": 10.0,
        "plane_age": 14.0,
        "seats": 182,
        "dep_hour": 10,
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "manufacturer": "AIRBUS",
        "engine": "Turbo-fan",
        "plane_type": "Fixed wing multi engine",
    }


@pytest.mark.parametrize(("arr_delay", "late"), [(-40, False), (14, False), (15, True), (300, True), (None, None)])
def test_late_is_fifteen_minutes_and_unknown_for_a_flight_that_never_arrived(
    build: Build, arr_delay: int | None, late: bool | None
) -> None:
    (row,) = build([flight(arr_delay=arr_delay)])
    assert row["late"] is late


def test_a_cancelled_flight_keeps_its_features(build: Build) -> None:
    cancelled = flight(dep_time=None, dep_delay=None, arr_time=None, arr_delay=None, air_time=None, tailnum=None)
    (row,) = build([cancelled])
    assert (row["late"], row["seats"], row["plane_age"]) == (None, None, None)
    assert (row["dep_minute"], row["temp"]) == (615, 40.0)


def test_midnight_is_written_in_two_ways_and_arrivals_may_be_tomorrow(build: Build) -> None:
    evening = {"sched_dep_time": 2359, "hour": 23, "minute": 59}
    rows = build(
        [
            flight(1, sched_arr_time=2400),
            flight(2, sched_arr_time=1, **evening),
            flight(3, sched_arr_time=340, **evening),
        ]
    )
    assert [row["arr_minute"] for row in rows] == [0, 1, 3 * 60 + 40]
    assert [row["minutes"] for row in rows] == [24 * 60 - 615, 2, 221]


def test_weather_is_that_of_the_airport_and_hour(build: Build) -> None:
    hours = [
        weather(temp=1.0),
        weather(origin="JFK", temp=2.0),
        weather(time_hour=TEN + dt.timedelta(hours=1), hour=11, temp=3.0),
    ]
    rows = build(
        [
            flight(1),
            flight(2, origin="JFK"),
            flight(3, time_hour=TEN + dt.timedelta(hours=1), hour=11, sched_dep_time=1115),
            flight(4, origin="LGA"),
        ],
        hours,
    )
    assert [row["temp"] for row in rows] == [1.0, 2.0, 3.0, None]


def test_a_broken_wind_sensor_is_a_missing_value(build: Build) -> None:
    (row,) = build([flight()], [weather(wind_speed=1048.36058)])
    assert row["wind_speed"] is None
    assert row["temp"] == 40.0


def test_unknown_planes_are_missing_values(build: Build) -> None:
    rows = build([flight(1, tailnum="N9"), flight(2)], planes=[plane(year=None)])
    assert (rows[0]["seats"], rows[0]["manufacturer"], rows[0]["plane_age"]) == (None, None, None)
    assert (rows[1]["seats"], rows[1]["plane_age"]) == (182, None)


def test_departures_are_counted_within_the_batch(build: Build) -> None:
    tomorrow = {"batch": "2013-01-02", "day": 2, "time_hour": TEN + dt.timedelta(days=1)}
    rows = build([flight(1), flight(2), flight(3, origin="JFK"), flight(4, hour=11), flight(5, **tomorrow)])
    assert [row["departures_in_hour"] for row in rows] == [2, 2, 1, 1, 1]


def test_every_flight_is_one_row_in_its_own_batch(build: Build) -> None:
    tomorrow = {"batch": "2013-01-02", "day": 2, "time_hour": TEN + dt.timedelta(days=1)}
    rows = build([flight(1), flight(1, sched_dep_time=1045, minute=45), flight(1, **tomorrow)])
    assert [(row["batch"], row["dep_minute"]) for row in rows] == [
        ("2013-01-01", 615),
        ("2013-01-01", 645),
        ("2013-01-02", 615),
    ]
    assert [row["temp"] for row in rows] == [40.0, 40.0, None]


@pytest.mark.parametrize("column", PIPELINE.source("flights").known_later)
def test_no_feature_depends_on_what_is_known_later(build: Build, column: str) -> None:
    flights = [flight(1), flight(2, arr_delay=-3), flight(3, origin="JFK", tailnum=None)]
    changed = [row | {column: None if number else 1111} for number, row in enumerate(flights)]
    known = (*PIPELINE.features.columns, *PIPELINE.features.keys)
    assert [[row[name] for name in known] for row in build(changed)] == [
        [row[name] for name in known] for row in build(flights)
    ]
