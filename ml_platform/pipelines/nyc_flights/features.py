"""Features of a flight: its schedule and route, the weather at its airport, its plane. One row a scheduled flight.

Everything here is known before departure, except the label.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

LATE_MINUTES = 15
"""From this many minutes on an arrival counts as late, as the Bureau of Transportation Statistics counts it."""

STRONGEST_WIND_MPH = 200.0
"""A sensor that reports more is broken: Newark reported 1,048 mph on 2013-02-12."""

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_gust", "precip", "pressure", "visib")


def build(spark: SparkSession, frames: Mapping[str, DataFrame], references: Mapping[str, DataFrame]) -> DataFrame:
    """Compute the features.

    Args:
        spark: the session; not needed here.
        frames: "flights" and "weather", see `schema`, with the column `batch`.
        references: "planes".

    Returns:
        One row for each row of "flights", with the columns that the pipeline declares. `late` is null for a flight
        that was cancelled or diverted. Times of day are minutes from local midnight.
    """
    flights = frames["flights"].select(
        "batch",
        "flight",
        "sched_dep_time",
        "time_hour",
        "carrier",
        "origin",
        "dest",
        "distance",
        "tailnum",
        F.col("year").alias("flown"),
        (F.col("arr_delay") >= LATE_MINUTES).alias("late"),
        F.col("hour").alias("dep_hour"),
        minute_of_day(F.col("sched_dep_time")).alias("dep_minute"),
        minute_of_day(F.col("sched_arr_time")).alias("arr_minute"),
        F.count("*").over(Window.partitionBy("batch", "origin", "hour")).alias("departures_in_hour"),
    )
    weather = frames["weather"].select(
        "batch",
        "origin",
        "time_hour",
        *WEATHER,
        F.when(F.col("wind_speed") <= STRONGEST_WIND_MPH, F.col("wind_speed")).alias("wind_speed"),
    )
    planes = references["planes"].select(
        "tailnum",
        "seats",
        "engine",
        F.col("type").alias("plane_type"),
        F.col("year").alias("built"),
        # One maker has many names: AIRBUS and AIRBUS INDUSTRIE, MCDONNELL DOUGLAS and four more.
        F.split("manufacturer", " ")[0].alias("manufacturer"),
    )
    joined = flights.join(weather, on=["batch", "origin", "time_hour"], how="left").join(planes, "tailnum", "left")
    return joined.withColumns(
        {
            # Scheduled time under way; the clocks of two time zones may differ, the same way on every day.
            "minutes": F.pmod(F.col("arr_minute") - F.col("dep_minute"), F.lit(24 * 60)),
            "plane_age": F.col("flown") - F.col("built"),
        }
    ).drop("tailnum", "flown", "built")


def minute_of_day(clock: Column) -> Column:
    """Minutes from midnight, 0 to 1439, of a time written as hhmm: 517 is 05:17, and 2400 is midnight as 0 is."""
    return F.pmod(F.floor(clock / 100).cast("int") * 60 + clock % 100, F.lit(24 * 60))
