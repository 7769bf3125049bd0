"""The same two sources with types and nothing else declared: what is stopped then is stopped by the history."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from ml_platform.pipelines.nyc_flights.schema import Flights, Weather


def _types(model: type[pa.DataFrameModel]) -> pa.DataFrameSchema:
    columns = model.to_schema().columns
    bare = {name: pa.Column(column.dtype.type, nullable=True) for name, column in columns.items()}
    return pa.DataFrameSchema(bare, strict=True)


FLIGHTS, WEATHER = _types(Flights), _types(Weather)
TYPES: dict[str, dict[str, pl.DataType]] = {
    name: {column: found.dtype.type for column, found in schema.columns.items()}
    for name, schema in (("flights", FLIGHTS), ("weather", WEATHER))
}
