"""Rows a second of the data gate, beside the same checks written by hand in polars; and its memory.

1. Speed. A batch of ten columns in Parquet: types, nulls, ranges, allowed values, a unique key, a cross-column rule.
   By hand it is one polars query over the whole file (the faster of polars' two engines), which says how many rows
   break what and nothing else. Wanted: gate / by hand >= 0.6. Also shown: both with the canonical file written
   (by hand: the query, then pyarrow row group by row group, zstd), and pandera's own `validate` on the whole frame.
2. Many small batches: milliseconds a file.
3. Memory. A batch at least four times as large (in memory, as polars holds it) as what the gate is allowed, in a
   process of its own, with its profile, in row groups, in a single row group, and as CSV. Wanted: it passes, and the
   peak resident size beyond that of the process with its libraries loaded stays within what was allowed.

    python -m benchmarks.gate [--rows N] [--rounds N] [--memory MIB]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandera.polars as pa
import polars as pl
import pyarrow.parquet as pq
from pandera.polars import PolarsData

from benchmarks import common
from ml_platform.gates.profile import Profiler
from ml_platform.gates.schema import check
from ml_platform.pipeline import Source

CARRIERS = ["AA", "UA", "DL", "B6", "WN"]
ORIGINS = ["EWR", "JFK", "LGA"]
GENERATED_AT_ONCE = 1 << 17


class Ten(pa.DataFrameModel):
    """Ten columns; ten types, nine columns without nulls, eight ranges or sets, a key, a rule across columns."""

    id: pl.Int64 = pa.Field(unique=True)
    day: pl.Int32 = pa.Field(in_range={"min_value": 1, "max_value": 31})
    carrier: str = pa.Field(isin=CARRIERS)
    origin: str = pa.Field(isin=ORIGINS)
    price: pl.Float64 = pa.Field(in_range={"min_value": 0, "max_value": 500})
    distance: pl.Float64 = pa.Field(ge=0, le=3000)
    delay: pl.Float64
    departs: pl.Int64 = pa.Field(ge=0)
    arrives: pl.Int64 = pa.Field(le=2400)
    note: str = pa.Field(nullable=True)

    @pa.dataframe_check
    @classmethod
    def departs_before_it_arrives(cls, data: PolarsData) -> pl.LazyFrame:
        """The rule across columns."""
        return data.lazyframe.select(pl.col("departs") <= pl.col("arrives"))


def by_hand(path: Path, engine: Literal["in-memory", "streaming"]) -> int:
    """The same checks in one query; how many rows it saw. Raises AssertionError when any is broken."""
    c = pl.col
    scan = pl.scan_parquet(path)
    assert dict(scan.collect_schema()) == {
        name: column.dtype.type for name, column in Ten.to_schema().columns.items()
    }, "types"
    filled = ["id", "day", "carrier", "origin", "departs", "arrives"]
    row = (
        scan.select(
            pl.len().alias("rows"),
            c.id.n_unique().alias("distinct"),
            *(c(name).is_null().sum().alias(f"{name} null") for name in filled),
            *((c(n).is_null() | c(n).is_nan()).sum().alias(f"{n} null") for n in ("price", "distance", "delay")),
            c.day.is_between(1, 31).not_().sum().alias("day range"),
            c.carrier.is_in(CARRIERS).not_().sum().alias("carrier set"),
            c.origin.is_in(ORIGINS).not_().sum().alias("origin set"),
            c.price.is_between(0, 500).not_().sum().alias("price range"),
            (c.distance < 0).sum().alias("distance least"),
            (c.distance > 3000).sum().alias("distance most"),
            (c.departs < 0).sum().alias("departs least"),
            (c.arrives > 2400).sum().alias("arrives most"),
            (c.departs > c.arrives).sum().alias("order"),
        )
        .collect(engine=engine)
        .row(0, named=True)
    )
    rows = int(row.pop("rows"))
    assert row.pop("distinct") == rows
    assert not any(row.values()), row
    return rows


def rewrite(path: Path, out: Path) -> None:
    """A copy in zstd by pyarrow, row group by row group."""
    source = pq.ParquetFile(path)
    with pq.ParquetWriter(out, source.schema_arrow, compression="zstd") as writer:
        for group in range(source.num_row_groups):
            writer.write_table(source.read_row_group(group))


def part(start: int, rows: int) -> pl.DataFrame:
    """Good rows from number `start` on."""
    random = np.random.default_rng(start)
    notes = np.array([f"note {n}" for n in range(1000)])
    return pl.DataFrame(
        {
            "id": np.arange(start, start + rows),
            "day": random.integers(1, 32, rows, dtype=np.int32),
            "carrier": np.array(CARRIERS)[random.integers(0, 5, rows)],
            "origin": np.array(ORIGINS)[random.integers(0, 3, rows)],
            "price": random.random(rows) * 500,
            "distance": random.random(rows) * 3000,
            "delay": random.normal(size=rows) * 30,
            "departs": random.integers(0, 1000, rows),
            "arrives": random.integers(1000, 2400, rows),
            "note": notes[random.integers(0, 1000, rows)],
        }
    )


def make(folder: Path, rows: int) -> tuple[Path, int]:
    """The batch in row groups, and how many bytes it takes in memory, as polars holds it."""
    path, size = folder / "groups.parquet", 0.0
    writer = None
    for start in range(0, rows, GENERATED_AT_ONCE):
        frame = part(start, min(GENERATED_AT_ONCE, rows - start))
        size += frame.estimated_size()
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return path, int(size)


def speed(path: Path, folder: Path, rounds: int) -> None:
    """Print the tables of part 1."""
    rows = pq.read_metadata(path).num_rows
    source = Source(name="ten", schema="benchmarks.gate:Ten")

    def gate(out: Path | None) -> None:
        report = check(path, source, memory_mib=512, out=out)
        assert report.accepted, report.reason

    def hand_and_write() -> None:
        by_hand(path, "streaming")
        rewrite(path, folder / "by_hand.parquet")

    def panderas() -> None:
        Ten.validate(pl.read_parquet(path), lazy=True)

    found = _measure(
        {
            "by hand, streaming engine": lambda: by_hand(path, "streaming"),
            "by hand, in-memory engine": lambda: by_hand(path, "in-memory"),
            "gate, verdict": lambda: gate(None),
            "pandera's validate, whole frame": panderas,
            "by hand, and a canonical copy": hand_and_write,
            "gate, and the canonical copy": lambda: gate(folder / "out.parquet"),
        },
        rows,
        rounds,
    )
    middle = {name: statistics.median(values) for name, values in found.items()}
    hand = max((name for name in list(found)[:2]), key=lambda name: middle[name])
    print(common.ratios(found, unit="M rows/s", against=hand))
    print(f"\ngate / {hand}: {common.Wish(middle['gate, verdict'] / middle[hand], at_least=0.6)}")
    both = middle["gate, and the canonical copy"] / middle["by hand, and a canonical copy"]
    print(f"with the copy, gate / by hand: {common.Wish(both, at_least=0.6)}\n")


def small(folder: Path, rounds: int, files: int = 362, rows: int = 900) -> None:
    """Print part 2."""
    paths = []
    for number in range(files):
        paths.append(folder / f"small-{number}.parquet")
        part(number * rows, rows).write_parquet(paths[-1])
    source = Source(name="ten", schema="benchmarks.gate:Ten")

    def all_of_them(write: bool) -> float:
        def body() -> None:
            for path in paths:
                assert check(path, source, memory_mib=512, out=folder / "small.out" if write else None).accepted

        return common.seconds(body) / files * 1000

    found = common.alternate(
        {"verdict": lambda: all_of_them(False), "and copy": lambda: all_of_them(True)}, rounds=rounds
    )
    print(f"{files} files of {rows} rows\n")
    print(common.ratios(found, unit="ms a file", against="verdict"))


def memory(folder: Path, allowed: int) -> bool:
    """Print part 3; whether all kept within what was allowed."""
    rows = int(4.1 * (allowed << 20) / (part(0, 10_000).estimated_size() / 10_000))
    path, size = make(folder, rows)
    table = pl.scan_parquet(path)
    table.sink_parquet(folder / "single.parquet", row_group_size=rows + 1)
    table.sink_csv(folder / "batch.csv")
    print(f"\n{rows:,} rows, {size / 2**20:,.0f} MiB in memory, {allowed} MiB allowed\n")
    shown = common.Table(["file", "seconds", "peak MiB", "beyond start", "/ allowed", "row groups"])
    good = size >= 4 * (allowed << 20)
    for name in ("groups.parquet", "single.parquet", "batch.csv"):
        command = [sys.executable, "-m", "benchmarks.gate", "--child", str(folder / name), "--memory", str(allowed)]
        child = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found = json.loads(child.stdout)
        beyond = found["peak"] - found["start"]
        groups = pq.read_metadata(folder / name).num_row_groups if name.endswith("parquet") else "-"
        shown.add(name, found["seconds"], found["peak"], beyond, f"{beyond / allowed:.2f}", groups)
        good = good and beyond <= allowed
    print(shown)
    print(f"\naccepted, within the memory allowed: {'yes' if good else 'NO'}")
    return good


def child(path: Path, allowed: int) -> None:
    """Check one file in this process and print its peak memory as JSON."""
    format_ = "csv" if path.suffix == ".csv" else "parquet"
    source = Source(name="ten", schema="benchmarks.gate:Ten", format=format_)  # type: ignore[arg-type]
    start = _peak()
    reports = []
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        out = Path(folder) / "out.parquet"
        seconds = common.seconds(
            lambda: reports.append(check(path, source, memory_mib=allowed, out=out, profiler=Profiler))
        )
    assert reports[0].accepted, reports[0].reason
    print(json.dumps({"seconds": seconds, "start": start, "peak": _peak()}))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=192, help="MiB allowed in part 3")
    parser.add_argument("--only", choices=["speed", "small", "memory"], help="one part alone")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.memory)
        return
    print(common.header("The data gate", libraries=("polars", "pandera", "pyarrow", "numpy")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "speed"):
            path, _ = make(folder, options.rows)
            size, groups = path.stat().st_size / 2**20, pq.read_metadata(path).num_row_groups
            print(f"{options.rows:,} rows, 10 columns, {size:,.0f} MiB of Parquet, {groups} row groups\n")
            speed(path, folder, options.rounds)
        if options.only in (None, "small"):
            small(folder, options.rounds)
    good = True
    if options.only in (None, "memory"):
        with tempfile.TemporaryDirectory() as name:
            good = memory(Path(name), options.memory)
    sys.exit(0 if good else 1)


def _measure(bodies: dict[str, Callable[[], object]], rows: int, rounds: int) -> dict[str, list[float]]:
    def timed(body: Callable[[], object]) -> Callable[[], float]:
        return lambda: rows / common.seconds(body) / 1e6

    return common.alternate({name: timed(body) for name, body in bodies.items()}, rounds=rounds)


def _peak() -> float:
    """Largest resident size of this process so far, in MiB. Linux; `ru_maxrss` would be the parent's, if larger."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    main()
