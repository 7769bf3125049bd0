"""Feature functions of the tiny pipeline from which no model can learn: the gate of features refuses what they make."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ml_platform_tests.tiny_pipeline.features import build

Frames = Mapping[str, DataFrame]


def infinite(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """The load of one reading of each lot is infinite. The label is `state`."""
    first = F.col("reading") % 1000 == 7
    return build(spark, frames, references).withColumn("load", F.when(first, float("inf")).otherwise(F.col("load")))


def constant(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """As after a join without a match: the load is never there. The label is `state`."""
    return build(spark, frames, references).withColumn("load", F.lit(None).cast("double"))
