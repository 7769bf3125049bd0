"""Features of a reading: what was read, and how little the machine shook in the lot before."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


def build(spark: SparkSession, frames: Mapping[str, DataFrame], references: Mapping[str, DataFrame]) -> DataFrame:
    """One row for each reading of the lot itself; `vibration_before` is null in the first lot."""
    readings = frames["readings"]
    before = (
        readings.where(F.col("batch_age") == 1)
        .groupBy("batch", "machine")
        .agg(F.min("vibration").alias("vibration_before"))
    )
    current = readings.where(F.col("batch_age") == 0)
    return current.join(before, on=["batch", "machine"], how="left").select(
        "batch", "reading", "machine", "shift", "load", "vibration", "vibration_before", "state"
    )
