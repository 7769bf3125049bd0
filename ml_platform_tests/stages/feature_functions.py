"""Feature functions for the tests of the feature job: one that is right, and one for each way to be wrong.

Their source has the columns `id`, `shop` and `amount`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

Frames = Mapping[str, DataFrame]


def right(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """The shop's total within the batch beside each sale."""
    total = F.sum("amount").over(Window.partitionBy("batch", "shop"))
    return frames["sales"].withColumns({"total": total, "good": F.col("amount") > 10})


def only_large(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Sales of 100 and more: none, for most batches."""
    return right(spark, frames, references).where("amount >= 100")


def priced(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """`total` from the reference table."""
    return frames["sales"].join(references["prices"], "shop", "left").withColumn("good", F.lit(True))


def from_before(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """`total` tells which sales the function saw, as age * 1000 + id summed over the look-back."""
    sales = frames["sales"]
    seen = sales.groupBy("batch").agg(F.sum(F.col("batch_age") * 1000 + F.col("id")).alias("total"))
    return sales.where("batch_age = 0").drop("batch_age").join(seen, "batch").withColumn("good", F.lit(False))


def mixing(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Forgets the batch in a window."""
    total = F.sum("amount").over(Window.partitionBy("shop"))
    return frames["sales"].withColumns({"total": total, "good": F.col("amount") > 10})


def crossing(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Forgets the batch in a join: more rows together than alone."""
    shops = frames["sales"].select("shop", F.lit(1).alias("total"))
    return frames["sales"].join(shops, "shop").withColumn("good", F.lit(True))


def random(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Says something else each time."""
    return right(spark, frames, references).withColumn("total", F.rand())


def without_batch(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Drops the platform's column."""
    return right(spark, frames, references).drop("batch")


def without_label(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Drops the label."""
    return right(spark, frames, references).drop("good")


def without_feature(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Drops a declared feature."""
    return right(spark, frames, references).drop("total")


def with_more(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Returns a column that nobody declared."""
    return right(spark, frames, references).withColumn("weekday", F.lit(3))


def with_two(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Returns two columns of one name."""
    return right(spark, frames, references).select("*", "total")


def with_date(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """A numeric feature that is a date."""
    return right(spark, frames, references).withColumn("total", F.current_date())


def with_float_category(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """A category that is a float."""
    return right(spark, frames, references).withColumn("shop", F.lit(0.5))


def with_text_label(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """A binary label that is text."""
    return right(spark, frames, references).withColumn("good", F.lit("yes"))


def of_another_batch(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Invents a batch."""
    return right(spark, frames, references).withColumn("batch", F.lit("invented"))


def of_no_batch(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Loses the batch of every row."""
    return right(spark, frames, references).withColumn("batch", F.lit(None).cast("string"))


def no_frame(spark: SparkSession, frames: Frames, references: Frames) -> Any:
    """Returns something else."""
    return right(spark, frames, references).columns


def misspelt(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Asks for a column that is not there: fails when called."""
    return frames["sales"].select("ammount")


def dividing(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """Divides by an amount that may be 0: fails when computed."""
    return right(spark, frames, references).withColumn("total", 1 / F.col("amount"))


def breaks_on_two_lots(spark: SparkSession, frames: Frames, references: Frames) -> DataFrame:
    """The tiny pipeline's own function, with rows in each of two lots that Spark cannot compute."""
    from ml_platform_tests.tiny_pipeline.features import build

    made = build(spark, frames, references)
    bad = F.col("batch").isin("lot-02", "lot-05")
    return made.withColumn("load", F.when(bad, F.raise_error(F.lit("no"))).otherwise(F.col("load")))
