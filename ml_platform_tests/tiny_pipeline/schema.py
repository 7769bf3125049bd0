"""What a good lot of readings looks like."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl
from pandera.polars import Field


class Readings(pa.DataFrameModel):
    """One reading of one machine. `state` is missing where nobody looked."""

    reading: pl.Int64 = Field(ge=0, unique=True)
    machine: pl.String = Field(isin=["press", "lathe", "saw"])
    shift: pl.Int64 = Field(ge=1, le=3)
    load: pl.Float64 = Field(ge=0, le=1)
    vibration: pl.Float64 = Field(nullable=True, ge=0, le=20)
    state: pl.String = Field(nullable=True, isin=["fine", "worn", "broken"])

    class Config:
        strict = True
