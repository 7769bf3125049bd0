"""The gate of a feature matrix, beside reading it: types, finite, constant, label, drift, holdout against training.

Made days of the flights' shape in Parquet: 16 numeric columns, 7 categorical ones and a label, a file a day. Wanted:
at most 1.5 s for 181 days of 1,000 rows; memory that does not grow with the rows.

    python -m benchmarks.matrix [--days N] [--rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import common
from ml_platform.gates.matrix import examine
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

NUMBERS = tuple(f"n{number}" for number in range(16))
TEXTS = tuple(f"t{number}" for number in range(7))


def write(folder: Path, days: int, rows: int) -> dict[str, list[Path]]:
    """Files by day."""
    files = {}
    for day in range(days):
        random = np.random.default_rng(day)
        columns = {n: pa.array(random.normal(size=rows), mask=random.random(rows) < 0.03) for n in NUMBERS}
        columns |= {n: pa.array(random.integers(0, 5 + 15 * i, rows).astype(str)) for i, n in enumerate(TEXTS)}
        columns["late"] = pa.array((random.random(rows) < 0.24).astype(float))
        path = folder / f"day-{day:05d}.parquet"
        pq.write_table(pa.table(columns), path, compression="zstd")
        files[path.stem] = [path]
    return files


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=181)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(common.header("The gate of a feature matrix", libraries=("polars", "pyarrow", "numpy", "datasketches")))
    features = replace(PIPELINE.features, numeric=NUMBERS, categorical=TEXTS)
    pipeline = replace(PIPELINE, features=features)
    with tempfile.TemporaryDirectory() as name:
        files = write(Path(name), options.days, options.rows)
        names = list(files)
        cut = options.days * 5 // 6
        train, holdout = ({day: files[day] for day in part} for part in (names[:cut], names[cut:]))
        bodies: dict[str, Callable[[], object]] = {
            "read only": lambda: [pq.read_table(path) for (path,) in files.values()],
            "the gate": lambda: examine(pipeline, train=train, holdout=holdout),
        }
        variants = {name: functools.partial(common.seconds, body) for name, body in bodies.items()}
        found = common.alternate(variants, rounds=options.rounds)
    print(f"{options.days:,} days of {options.rows:,} rows, {len(features.columns)} columns\n")
    print(common.ratios(found, unit="s", against="read only"))
    rows = options.days * options.rows / statistics.median(found["the gate"])
    print(f"\n{rows:,.0f} rows a second; at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MiB")
    print(f"seconds {common.Wish(statistics.median(found['the gate']), at_most=1.5)}")


if __name__ == "__main__":
    main()
