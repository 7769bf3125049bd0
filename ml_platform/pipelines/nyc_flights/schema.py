"""What a good batch of flights, a good batch of weather and a good table of planes look like.

Bounds are those that the world sets, not those that this half year happened to have. A rule is about one row, or says
that a batch is of one day; a missing value passes a rule.
"""

from __future__ import annotations

from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
from pandera.polars import Field, PolarsData

UtcHour = Annotated[pl.Datetime, "us", "UTC"]

AIRPORTS = ["EWR", "JFK", "LGA"]
ZONE = "America/New_York"
A_DAY = 24 * 60
"""Minutes."""

CLOCK: Any = {"ge": 0, "le": 2400}


def _is_clock(data: PolarsData) -> pl.LazyFrame:
    return data.lazyframe.select(pl.col(data.key) % 100 < 60)


def _is_its_hour() -> pl.Expr:
    """`time_hour` (UTC) is the local year, month, day and hour that the row names."""
    local = pl.col("time_hour").dt.convert_time_zone(ZONE)
    return (
        (local.dt.year() == pl.col("year"))
        & (local.dt.month() == pl.col("month"))
        & (local.dt.day() == pl.col("day"))
        & (local.dt.hour() == pl.col("hour"))
        & (local.dt.minute() == 0)
        & (local.dt.second() == 0)
    )


def _is_of_the_first_day() -> pl.Expr:
    return pl.all_horizontal(pl.col(name) == pl.col(name).first() for name in ("year", "month", "day"))


class Flights(pa.DataFrameModel):
    """One scheduled flight. Delays are minutes, negative when early; clock times are local and written hhmm."""

    year: pl.Int32 = Field(ge=1987, le=2100)
    month: pl.Int32 = Field(ge=1, le=12)
    day: pl.Int32 = Field(ge=1, le=31)
    dep_time: pl.Int32 = Field(nullable=True, **CLOCK)
    sched_dep_time: pl.Int32 = Field(**CLOCK)
    dep_delay: pl.Int32 = Field(nullable=True, ge=-A_DAY, le=3 * A_DAY)
    arr_time: pl.Int32 = Field(nullable=True, **CLOCK)
    sched_arr_time: pl.Int32 = Field(**CLOCK)
    arr_delay: pl.Int32 = Field(nullable=True, ge=-A_DAY, le=3 * A_DAY)
    carrier: pl.String = Field(str_matches=r"^[A-Z0-9]{2}$")
    flight: pl.Int32 = Field(ge=1, le=9999)
    tailnum: pl.String = Field(nullable=True, str_matches=r"^[A-Z0-9]{2,6}$")
    origin: pl.String = Field(isin=AIRPORTS)
    dest: pl.String = Field(str_matches=r"^[A-Z]{3}$")
    air_time: pl.Int32 = Field(nullable=True, gt=0, le=A_DAY)
    distance: pl.Int32 = Field(gt=0, le=12_500)
    hour: pl.Int32 = Field(ge=0, le=24)
    minute: pl.Int32 = Field(ge=0, le=59)
    time_hour: UtcHour

    class Config:
        strict = True
        unique = ["year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"]  # noqa: RUF012

    @pa.check("dep_time", "sched_dep_time", "arr_time", "sched_arr_time")
    @classmethod
    def is_clock_time(cls, data: PolarsData) -> pl.LazyFrame:
        """hhmm has at most 59 minutes."""
        return _is_clock(data)

    @pa.dataframe_check
    @classmethod
    def hour_and_minute_are_the_schedule(cls, data: PolarsData) -> pl.LazyFrame:
        """`hour` and `minute` are `sched_dep_time` taken apart."""
        return data.lazyframe.select(pl.col("hour") * 100 + pl.col("minute") == pl.col("sched_dep_time"))

    @pa.dataframe_check
    @classmethod
    def time_hour_is_the_local_hour(cls, data: PolarsData) -> pl.LazyFrame:
        """`time_hour` is the hour of scheduled departure."""
        return data.lazyframe.select(_is_its_hour())

    @pa.dataframe_check
    @classmethod
    def one_day(cls, data: PolarsData) -> pl.LazyFrame:
        """All flights of a batch leave on one day."""
        return data.lazyframe.select(_is_of_the_first_day())

    @pa.dataframe_check
    @classmethod
    def goes_somewhere_else(cls, data: PolarsData) -> pl.LazyFrame:
        """The destination is another airport."""
        return data.lazyframe.select(pl.col("dest") != pl.col("origin"))

    @pa.dataframe_check
    @classmethod
    def arrived_only_if_departed(cls, data: PolarsData) -> pl.LazyFrame:
        """A flight that arrived had departed, and its departure has a delay."""
        departed = pl.col("dep_time").is_not_null()
        return data.lazyframe.select(
            (departed | pl.col("arr_delay").is_null()) & (departed == pl.col("dep_delay").is_not_null())
        )


class Weather(pa.DataFrameModel):
    """One airport and hour. Fahrenheit, miles an hour, inches, millibars, miles; `wind_dir` in degrees."""

    origin: pl.String = Field(isin=AIRPORTS)
    year: pl.Int64 = Field(ge=1987, le=2100)
    month: pl.Int64 = Field(ge=1, le=12)
    day: pl.Int64 = Field(ge=1, le=31)
    hour: pl.Int64 = Field(ge=0, le=23)
    temp: pl.Float64 = Field(nullable=True, ge=-60, le=130)
    dewp: pl.Float64 = Field(nullable=True, ge=-80, le=100)
    humid: pl.Float64 = Field(nullable=True, ge=0, le=100)
    wind_dir: pl.Float64 = Field(nullable=True, ge=0, le=360)
    # Broken sensors are part of the real feed (1,048 mph, once): the features leave such a value out.
    wind_speed: pl.Float64 = Field(nullable=True, ge=0, le=1500)
    wind_gust: pl.Float64 = Field(nullable=True, ge=0, le=1500)
    precip: pl.Float64 = Field(nullable=True, ge=0, le=15)
    pressure: pl.Float64 = Field(nullable=True, ge=850, le=1090)
    visib: pl.Float64 = Field(nullable=True, ge=0, le=100)
    time_hour: UtcHour

    class Config:
        strict = True
        unique = ["origin", "time_hour"]  # noqa: RUF012

    @pa.dataframe_check
    @classmethod
    def time_hour_is_the_local_hour(cls, data: PolarsData) -> pl.LazyFrame:
        """`time_hour` is the hour that the row names."""
        return data.lazyframe.select(_is_its_hour())

    @pa.dataframe_check
    @classmethod
    def one_day(cls, data: PolarsData) -> pl.LazyFrame:
        """All hours of a batch are of one local day."""
        return data.lazyframe.select(_is_of_the_first_day())

    @pa.dataframe_check
    @classmethod
    def dew_point_is_not_above_temperature(cls, data: PolarsData) -> pl.LazyFrame:
        """Air is saturated at the dew point. Half a degree is left for rounding."""
        return data.lazyframe.select(pl.col("dewp") <= pl.col("temp") + 0.5)


class Planes(pa.DataFrameModel):
    """One aircraft in the registry. `year` is that of manufacture, `speed` the cruising speed in mph."""

    tailnum: pl.String = Field(unique=True, str_matches=r"^[A-Z0-9]{2,6}$")
    year: pl.Float64 = Field(nullable=True, ge=1903, le=2100)
    type: pl.String = Field(nullable=True)
    manufacturer: pl.String = Field(nullable=True)
    model: pl.String = Field(nullable=True)
    engines: pl.Int64 = Field(ge=0, le=8)
    seats: pl.Int64 = Field(ge=0, le=900)
    speed: pl.Float64 = Field(nullable=True, ge=0, le=1600)
    engine: pl.String = Field(nullable=True)

    class Config:
        strict = True
