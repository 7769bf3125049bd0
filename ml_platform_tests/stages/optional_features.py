"""Features of the tiny pipeline with orders that may be absent."""

from __future__ import annotations

from collections.abc import Mapping

import pandera.polars as pa
import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


class Orders(pa.DataFrameModel):
    """How many pieces a machine was to make in a lot."""

    machine: pl.String
    pieces: pl.Int64 = pa.Field(ge=0)

    class Config:
        strict = True


class LooseOrders(pa.DataFrameModel):
    """The same, with columns that nobody has named."""

    machine: pl.String
    pieces: pl.Int64


def build(spark: SparkSession, frames: Mapping[str, DataFrame], references: Mapping[str, DataFrame]) -> DataFrame:
    """A reading, and what was ordered of its machine; null where no orders landed. The label is `state`."""
    pieces = frames["orders"].groupBy("batch", "machine").agg(F.sum("pieces").alias("pieces"))
    return (
        frames["readings"]
        .join(pieces, on=["batch", "machine"], how="left")
        .select("batch", "reading", "machine", "shift", "load", "vibration", "pieces", "state")
    )
