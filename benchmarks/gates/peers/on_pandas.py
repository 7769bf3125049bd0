"""The checks of `benchmarks.gate.Ten` by pandera on pandas: versions, and seconds from the file to the verdict."""

import json
import sys
import time

import pandas as pd
import pandera
import pandera.pandas as pa

CARRIERS, ORIGINS = ["AA", "UA", "DL", "B6", "WN"], ["EWR", "JFK", "LGA"]

SCHEMA = pa.DataFrameSchema(
    {
        "id": pa.Column("int64", unique=True),
        "day": pa.Column("int32", pa.Check.in_range(1, 31)),
        "carrier": pa.Column(str, pa.Check.isin(CARRIERS)),
        "origin": pa.Column(str, pa.Check.isin(ORIGINS)),
        "price": pa.Column("float64", pa.Check.in_range(0, 500)),
        "distance": pa.Column("float64", [pa.Check.ge(0), pa.Check.le(3000)]),
        "delay": pa.Column("float64"),
        "departs": pa.Column("int64", pa.Check.ge(0)),
        "arrives": pa.Column("int64", pa.Check.le(2400)),
        "note": pa.Column(str, nullable=True),
    },
    checks=pa.Check(lambda frame: frame["departs"] <= frame["arrives"]),
)


def once(path: str) -> float:
    """Seconds of one validation."""
    begun = time.perf_counter()
    SCHEMA.validate(pd.read_parquet(path), lazy=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    times = [once(sys.argv[1]) for _ in range(int(sys.argv[2]) + 1)][1:]
    print(json.dumps({"name": f"pandera {pandera.__version__}, pandas {pd.__version__}", "seconds": times}))
