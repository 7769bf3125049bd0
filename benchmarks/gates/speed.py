"""How fast the whole gate of a batch is, with profile and drift, beside others; and how soon a bad batch is known.

1. A batch of ten columns in Parquet (`benchmarks.gate`): ten types and 19 checks (nine columns without nulls, eight
   ranges and sets, a unique key, a rule across columns), the profile, and the drift against 28 accepted batches. From
   the file to the verdict. Wanted: at least 10 M rows a second. Also as rows for each second of one core: on a machine
   that has other things to do, that is what can be compared.
2. The same checks on fewer rows by pandera on polars, pandera on pandas and Great Expectations, the last two in an
   environment of their own, in turns.
3. A batch of 1,000 rows that is rejected, in a process of its own from spawn to reap: `check()` alone, and
   `ml-platform check`, with and without 28 earlier days to compare with; where no Java is to be found, so that no Spark
   can be started. Wanted: under 5 s.

    python -m benchmarks.gates.speed [--rows N] [--peer-rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from benchmarks import common, gate
from benchmarks.incremental import processes
from ml_platform.gates import drift
from ml_platform.gates.declaration import BatchGate
from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import Profiler
from ml_platform.gates.schema import check
from ml_platform.pipeline import Source

PEERS = ("great-expectations==1.24.1", "pandera[pandas]==0.35.0", "pandas==3.1.1", "pyarrow==26.0.1")
SOURCE = Source(name="ten", schema="benchmarks.gate:Ten")
HISTORY_ROWS = 20_000

BARE = """
import sys
from pathlib import Path
from ml_platform.gates.profile import Profiler
from ml_platform.gates.schema import check
from ml_platform.pipeline import Source
source = Source(name="ten", schema="benchmarks.gate:Ten")
report = check(Path(sys.argv[1]), source, memory_mib=512, out=None, profiler=Profiler)
assert report.failed == ("values",), report.reason
"""


def verdict(path: Path, history: list[Accepted] | None, *, profiled: bool = True) -> None:
    """Check the batch, and compare its profile with the history."""
    made: list[Profiler] = []

    def profiler(columns: Mapping[str, pl.DataType]) -> Profiler:
        made.append(Profiler(columns))
        return made[-1]

    report = check(path, SOURCE, memory_mib=512, out=None, profiler=profiler if profiled else None)
    assert report.accepted, report.reason
    if profiled:
        profile = made[-1].profile()
        if history is not None:
            result = drift.judge(profile, history, SOURCE, BatchGate())
            assert "28 accepted batches" in result.message, result


def throughput(path: Path, rounds: int) -> bool:
    """Print part 1; whether the wish was granted."""
    rows = int(pq.read_metadata(path).num_rows)
    history = []
    for number in range(28):
        profiler = Profiler(gate.part(0, 1).schema)
        profiler.add(gate.part(number * HISTORY_ROWS, HISTORY_ROWS))
        history.append(Accepted(batch=f"{number:02d}", content=str(number), profile=profiler.profile()))
    whole = "schema, profile, drift"
    bodies: dict[str, Callable[[], object]] = {
        "the checks by hand in polars": lambda: gate.by_hand(path, "in-memory"),
        "schema": lambda: verdict(path, None, profiled=False),
        "schema, profile": lambda: verdict(path, None),
        whole: lambda: verdict(path, history),
    }
    cores: dict[str, list[float]] = {name: [] for name in bodies}

    def measured(name: str) -> float:
        used, begun = time.process_time(), time.perf_counter()
        bodies[name]()
        cores[name].append(rows / (time.process_time() - used) / 1e6)
        return rows / (time.perf_counter() - begun) / 1e6

    found = common.alternate({name: lambda name=name: measured(name) for name in bodies}, rounds=rounds)  # type: ignore[misc]
    table = common.Table(["from Parquet", "M rows/s, median", "least", "most", "runs", "M rows/s of one core"])
    for name, values in found.items():
        middle = statistics.median(values)
        table.add(name, middle, min(values), max(values), len(values), statistics.median(cores[name][1:]))
    print(f"{rows:,} rows, 10 columns, {path.stat().st_size / 2**20:,.0f} MiB\n\n{table}\n")
    wish = common.Wish(statistics.median(found[whole]), at_least=10)
    print(f"{whole}, M rows a second: {wish}\n")
    return wish.granted


def peers(path: Path, rounds: int) -> None:
    """Print part 2."""
    rows = int(pq.read_metadata(path).num_rows)
    names: dict[str, str] = {}

    def ours(body: Callable[[], object]) -> Callable[[], float]:
        return lambda: rows / common.seconds(body) / 1e6

    def theirs(interpreter: Path, script: str) -> Callable[[], float]:
        def run() -> float:
            file = Path(__file__).parent / "peers" / script
            done = subprocess.run([interpreter, "-W", "ignore", file, path, "1"], capture_output=True, check=True)
            told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            names[script] = told["name"]
            seconds: float = told["seconds"][0]
            return rows / seconds / 1e6

        return run

    variants = {
        "ml_platform, schema": ours(lambda: verdict(path, None, profiled=False)),
        "ml_platform, schema and profile": ours(lambda: verdict(path, None)),
        "pandera on polars": ours(lambda: gate.Ten.validate(pl.read_parquet(path), lazy=True)),
    }
    interpreter = common.own_python(*PEERS)
    if interpreter is not None:
        variants |= {script: theirs(interpreter, script) for script in ("on_pandas.py", "expectations.py")}
    found = common.alternate(variants, rounds=rounds)
    shown = {names.get(name, name): values for name, values in found.items()}
    print(f"{rows:,} rows, whole frame in memory for all but ours\n")
    print(common.ratios(shown, unit="M rows/s", against="ml_platform, schema"), "\n")


def rejected(folder: Path, rounds: int) -> bool:
    """Print part 3; whether the wish was granted."""
    from benchmarks.gates.days import days
    from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

    small = folder / "small.parquet"
    gate.part(0, 1000).with_columns(price=pl.lit(-1.0)).write_parquet(small)
    flights = folder / "flights.parquet"
    frames = [frames["flights"] for frames in days().values()]
    bad = pl.concat(frames[100:102]).head(1000)
    bad.with_columns(distance=-pl.col("distance")).write_parquet(flights)
    before = folder / "before" / "flights"
    before.mkdir(parents=True)
    for day, frame in zip(list(days())[72:100], frames[72:100], strict=True):
        frame.write_parquet(before / f"{day}.parquet")
    command: list[str | Path] = [
        "-m",
        "ml_platform.cli",
        "check",
        PIPELINE.name,
        "--path",
        flights,
        "--source",
        "flights",
    ]
    command += ["--batch", list(days())[100], "--against"]
    environment = {**os.environ, "JAVA_HOME": str(folder / "no java here")}

    def judged(*words: str | Path, status: int = 1) -> Callable[[], processes.Sample]:
        return lambda: processes.python(*words, environment=environment, statuses=(status,))

    variants = {
        "check(), with the profile": judged("-c", BARE, small, status=0),
        "ml-platform check": judged(*command, "none"),
        "ml-platform check, 28 days before it": judged(*command, before.parent),
    }
    found = processes.in_turns(variants, rounds)
    table = common.Table(["1,000 rows, rejected", "s, median", "least", "most", "processor s", "runs"])
    for name, samples in found.items():
        walls = [sample.wall for sample in samples]
        middle = processes.median(samples)
        table.add(name, middle.wall, min(walls), max(walls), middle.cpu, len(samples))
    worst = max(processes.median(samples).wall for samples in found.values())
    print(table)
    wish = common.Wish(worst, at_most=5)
    print(f"\nthe slowest, seconds: {wish}")
    return wish.granted


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--peer-rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["throughput", "peers", "rejected"], help="one part alone")
    options = parser.parse_args()
    libraries = ("polars", "pandera", "pyarrow", "numpy", "datasketches")
    print(common.header("The gate of a batch", libraries=libraries))
    good = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only in (None, "throughput"):
            good.append(throughput(gate.make(folder, options.rows)[0], options.rounds))
        if options.only in (None, "peers"):
            peers(gate.make(folder, options.peer_rows)[0], options.rounds)
        if options.only in (None, "rejected"):
            good.append(rejected(folder, options.rounds))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
