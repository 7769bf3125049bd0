"""How fast data versions are made, beside what else one might hash a table with.

The flights of the reference pipeline, as one Parquet file (repeated to --rows) and as daily batches. "SHA-256 of the
bytes" forgets nothing (another order of rows or another number of files gives another hash); the sums of row hashes of
polars and pandas forget the order of rows, and change with the library's version, the order of columns or the types.
Reading the Parquet file is what every hash of content costs at least. Wanted: 181 daily batches in under 0.5 s.

    python -m benchmarks.hashing [--rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import common
from ml_platform.versions.content import content_versions, table_version
from ml_platform.versions.rowhash import hash_rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(common.header("Hashing: data versions", libraries=("pyarrow", "numpy", "pandas", "polars")))
    flights = pq.read_table(str(files("ml_platform.pipelines.nyc_flights") / "data" / "flights.parquet"))
    with tempfile.TemporaryDirectory() as folder:
        one_file(flights, Path(folder), options.rows, options.rounds)
        many_batches(flights, Path(folder), options.rounds)


def one_file(flights: pa.Table, folder: Path, rows: int, rounds: int) -> None:
    """Time a large table, in memory and from Parquet."""
    table = pa.concat_tables([flights] * -(-rows // flights.num_rows)).slice(0, rows).combine_chunks()
    path = folder / "one.parquet"
    pq.write_table(table, path, compression="zstd")
    size, frame, other = table.nbytes, table.to_pandas(), pl.DataFrame(pl.from_arrow(table))
    sizes = f"{size / 1e6:.0f} MB in memory, {path.stat().st_size / 1e6:.0f} MB Parquet"
    print(f"{rows:,} rows x {table.num_columns} columns, {sizes}\n")
    variants: dict[str, Callable[[], object]] = {
        "data version, in memory": lambda: table_version(table),
        "of it, hashing rows": lambda: hash_rows(table),
        "data version, from Parquet": lambda: table_version(path),
        "reading the Parquet file": lambda: pq.read_table(path, use_threads=False),
        "SHA-256 of its bytes": lambda: hashlib.sha256(path.read_bytes()).digest(),
        "polars hash_rows, in memory": lambda: other.hash_rows().sum(),
        "pandas hash, in memory": lambda: pd.util.hash_pandas_object(frame, index=False).sum(),
    }
    found = common.alternate({n: lambda v=v: common.seconds(v) for n, v in variants.items()}, rounds=rounds)  # type: ignore[misc]
    table_ = common.Table(["", "median s", "rows/s", "MB/s of memory"])
    for name, values in found.items():
        middle = statistics.median(values)
        table_.add(name, middle, rows / middle, size / middle / 1e6)
    print(table_, "\n")


def many_batches(flights: pa.Table, folder: Path, rounds: int) -> None:
    """Time the daily batches, a file each."""
    batches: dict[str, list[Path]] = {}
    days = pc.add(pc.multiply(flights["month"], 100), flights["day"])
    for day in sorted(pc.unique(days).to_pylist()):
        batches[str(day)] = [folder / f"{day}.parquet"]
        pq.write_table(flights.filter(pc.equal(days, day)), batches[str(day)][0], compression="zstd")
    found = common.alternate(
        {
            "at once": lambda: common.seconds(lambda: content_versions(batches)),
            "one by one": lambda: common.seconds(lambda: [table_version(paths) for paths in batches.values()]),
            "reading them": lambda: common.seconds(lambda: [pq.read_table(paths[0]) for paths in batches.values()]),
        },
        rounds=rounds,
    )
    print(f"{len(batches)} batches of about {flights.num_rows // len(batches)} rows x {flights.num_columns} columns\n")
    print(common.ratios(found, unit="s", against="reading them"), "\n")
    begun = time.process_time()
    content_versions(batches)
    print(f"of processor time, at once: {time.process_time() - begun:.2f} s")
    print("181 batches in seconds:", common.Wish(statistics.median(found["at once"]), at_most=0.5))


if __name__ == "__main__":
    main()
