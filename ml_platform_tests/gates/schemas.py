"""Schemas that the gate's tests declare, as a team would."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl
from pandera.polars import PolarsData


class Orders(pa.DataFrameModel):
    """A bit of everything: types, nulls, ranges, allowed values, a column check, a key, a cross-column rule."""

    order: pl.Int64
    day: pl.Date
    shop: str = pa.Field(isin=["north", "south", "east"])
    price: pl.Float64 = pa.Field(in_range={"min_value": 0, "max_value": 1000})
    paid: pl.Float64 = pa.Field(nullable=True, ge=0)
    items: pl.Int32 = pa.Field(gt=0)
    note: str = pa.Field(nullable=True)

    @pa.check("items")
    def not_thirteen(cls, data: PolarsData) -> pl.LazyFrame:
        """A column check of the team's own."""
        return data.lazyframe.select(pl.col(data.key) != 13)

    @pa.dataframe_check
    def paid_at_most_the_price(cls, data: PolarsData) -> pl.LazyFrame:
        """A rule across columns."""
        return data.lazyframe.select(pl.col("paid") <= pl.col("price"))

    class Config:
        strict = True
        unique = ["order", "day"]  # noqa: RUF012


class Wide(pa.DataFrameModel):
    """Coerces, lets further columns through, and gives a default."""

    key: pl.Int64 = pa.Field(unique=True, coerce=True)
    amount: pl.Float32 = pa.Field(coerce=True, nullable=True)
    when: pl.Datetime("us", "UTC") = pa.Field(coerce=True)  # type: ignore[valid-type]
    region: str = pa.Field(default="unknown")


CRASHING = pa.DataFrameSchema(
    {"x": pa.Column(pl.Int64, pa.Check(lambda data: 1 // 0, name="divides"))},
    checks=pa.Check(lambda data: data.lazyframe.select(pl.col("nowhere") > 1), name="asks_for_nowhere"),
)

CRASHING_ROWS = pa.DataFrameSchema(
    {"x": pa.Column(pl.Int64, [pa.Check(lambda value: 1 // (value - 5) < 9, element_wise=True, name="inverse")])}
)

WHOLE = pa.DataFrameSchema(
    {
        "x": pa.Column(
            pl.Int64,
            [
                pa.Check(lambda data: data.lazyframe.select(pl.col("x").mean() < 1000), name="mean_below_1000"),
                pa.Check(lambda data: data.lazyframe.select(pl.col("x") <= pl.col("x").mean() * 3), name="no_peak"),
            ],
        ),
        "g": pa.Column(str, pa.Check.unique_values_eq(["a", "b"])),
    }
)

SHUFFLED = pa.DataFrameSchema(
    {"b": pa.Column(pl.Int64), "a": pa.Column(str), "c_.*": pa.Column(pl.Float64, regex=True)}
)

DROPS = pa.DataFrameSchema({"x": pa.Column(pl.Int64)}, drop_invalid_rows=True)

CATEGORIES = pa.DataFrameSchema(
    {
        "kind": pa.Column(pl.Categorical, coerce=True),
        "at": pa.Column(pl.Datetime("ns", "UTC")),
        "n": pa.Column(pl.Int64),
    },
    unique=["kind", "n"],
)

NOT_A_SCHEMA = {"x": int}

OURS = pa.DataFrameSchema({"row": pa.Column(pl.Int64, unique=True), "broke": pa.Column(str)})

OPEN = pa.DataFrameSchema({"key": pa.Column(pl.Int64, unique=True)})

PATTERN = pa.DataFrameSchema({r"^\^.*$": pa.Column(pl.Int64, pa.Check.ge(0), regex=True)})
