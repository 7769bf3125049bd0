"""Features of all 181 days of flights: our path beside a PySpark script written by hand.

Ours: canonical Parquet by batch, as the gate writes it, named by content -> `feature_job.compute`, with its check that
batches are kept apart -> data versions of all batches. By hand: the same files, laid in folders by date -> the same
transformation in one function -> daily folders; no checks, no hashes. Both in one session that is warm, in turns, and
as whole processes, where a JVM starts and ends. The rows are compared once: every day must have the same data version.
Wanted: ours / by hand <= 1.3, and hashing under a tenth of our path.

    python -m benchmarks.features [--rounds N] [--processes N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks import common
from ml_platform.pipeline import Reference, Source
from ml_platform.pipelines.nyc_flights.data import sample
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.stages.feature_job import compute
from ml_platform.stages.spark import builder, spark_config, stop
from ml_platform.versions.content import content_versions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Inputs = dict[str, dict[str, Path]]


def main() -> None:
    """The command line; with --one, one process of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="in one warm session")
    parser.add_argument("--processes", type=int, default=5, help="whole processes of each; 0 for none")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        variant, folder = options.one[0], Path(options.one[1])
        session = start(folder)
        VARIANTS[variant](session, folder, folder / f"out-{os.getpid()}")
        stop(session)
        return
    print(common.header("Features: 181 days of flights", libraries=("pyspark", "pyarrow")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        in_one_session(folder, options.rounds)
        if options.processes:
            as_processes(folder, options.processes)


def prepare(folder: Path) -> None:
    """Lay the canonical files twice: named by content for us, and in folders by date for the script."""
    from ml_platform.gates.schema import check

    every: tuple[Source | Reference, ...] = (*PIPELINE.sources, *PIPELINE.references)
    feeds = {feed.name: feed for feed in every}
    (folder / "store").mkdir()
    inputs: dict[str, dict[str, str]] = {}
    for feed, day, table in sample():
        pq.write_table(table, folder / "landed")
        canonical = folder / "canonical"
        report = check(folder / "landed", feeds[feed], memory_mib=512, out=canonical)
        assert report.accepted, report.reason
        stored = folder / "store" / hashlib.sha256(canonical.read_bytes()).hexdigest()
        canonical.replace(stored)
        inputs.setdefault(day or "", {})[feed] = str(stored)
        place = folder / "by_date" / feed / (f"date={day}" if day else "")
        place.mkdir(parents=True)
        os.link(stored, place / "data.parquet")
    (folder / "inputs.json").write_text(json.dumps(inputs))


def start(folder: Path) -> SparkSession:
    """A session with the platform's settings, for both."""
    session: SparkSession = builder(spark_config(scratch=folder / "spark")).getOrCreate()
    return session


def ours(spark: SparkSession, folder: Path, out: Path) -> dict[str, float]:
    """The platform's path; returns the seconds of its two parts."""
    inputs: Inputs = {
        day: {feed: Path(path) for feed, path in files.items()}
        for day, files in json.loads((folder / "inputs.json").read_text()).items()
    }
    references = inputs.pop("")
    begun = time.perf_counter()
    written = compute(spark, PIPELINE, inputs, history={}, references=references, out=out)
    computed = time.perf_counter()
    content_versions(written)
    return {"compute": computed - begun, "hash": time.perf_counter() - computed}


def by_hand(spark: SparkSession, folder: Path, out: Path) -> dict[str, float]:
    """The script that one would write without a platform."""
    from pyspark.sql import Column, Window
    from pyspark.sql import functions as F

    begun = time.perf_counter()
    flights = spark.read.parquet(str(folder / "by_date" / "flights")).withColumn("date", F.col("date").cast("string"))
    weather = spark.read.parquet(str(folder / "by_date" / "weather")).withColumn("date", F.col("date").cast("string"))
    planes = spark.read.parquet(str(folder / "by_date" / "planes"))

    def minute_of_day(name: str) -> Column:
        return F.pmod(F.floor(F.col(name) / 100).cast("int") * 60 + F.col(name) % 100, F.lit(1440))

    scheduled = flights.withColumns(
        {
            "dep_minute": minute_of_day("sched_dep_time"),
            "arr_minute": minute_of_day("sched_arr_time"),
            "departures_in_hour": F.count("*").over(Window.partitionBy("date", "origin", "hour")),
        }
    ).withColumnRenamed("year", "flown")
    sky = weather.drop("year", "month", "day", "hour").withColumn(
        "wind_speed", F.when(F.col("wind_speed") <= 200, F.col("wind_speed"))
    )
    joined = scheduled.join(sky, ["date", "origin", "time_hour"], "left").join(planes, "tailnum", "left")
    rows = joined.select(
        "date",
        "flight",
        "sched_dep_time",
        "time_hour",
        *(F.col(name).cast("double") for name in ("dep_minute", "arr_minute")),
        F.pmod(F.col("arr_minute") - F.col("dep_minute"), F.lit(1440)).cast("double").alias("minutes"),
        *(F.col(name).cast("double") for name in ("distance", "departures_in_hour")),
        *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
        (F.col("flown") - F.col("year")).cast("double").alias("plane_age"),
        F.col("seats").cast("double"),
        F.col("hour").cast("string").alias("dep_hour"),
        *("carrier", "origin", "dest"),
        F.split("manufacturer", " ")[0].alias("manufacturer"),
        "engine",
        F.col("type").alias("plane_type"),
        (F.col("arr_delay") >= 15).cast("double").alias("late"),
    )
    rows.repartition("date").write.partitionBy("date").option("compression", "zstd").parquet(str(out))
    return {"compute": time.perf_counter() - begun}


VARIANTS: dict[str, Callable[[SparkSession, Path, Path], dict[str, float]]] = {"ours": ours, "by hand": by_hand}


def in_one_session(folder: Path, rounds: int) -> None:
    """Both in turns in one session, after a round to warm up; then compare the rows."""
    spark = start(folder)
    parts: list[dict[str, float]] = []
    made: dict[str, Path] = {}

    busy: dict[str, list[float]] = {name: [] for name in VARIANTS}

    def once(name: str) -> float:
        made[name] = folder / f"{name} {len(list(folder.iterdir()))}"
        before = processor_seconds()
        seconds = VARIANTS[name](spark, folder, made[name])
        busy[name].append(processor_seconds() - before)
        if name == "ours":
            parts.append(seconds)
        return sum(seconds.values())

    found = common.alternate({name: partial(once, name) for name in VARIANTS}, rounds=rounds)
    print("## In one warm session\n")
    print(common.ratios(found, unit="s", against="by hand"))
    if Path("/proc").exists():
        print("\nProcessor time, which other work on the machine disturbs less:\n")
        print(common.ratios({name: values[1:] for name, values in busy.items()}, unit="s", against="by hand"))
    ratio = statistics.median(found["ours"]) / statistics.median(found["by hand"])
    share = statistics.median(part["hash"] / sum(part.values()) for part in parts[1:])
    print(f"\nours / by hand       {common.Wish(ratio, at_most=1.3)}")
    print(f"hashing / our path   {common.Wish(share, at_most=0.1)}")
    places = [*(made["ours"] / "features").iterdir()], [*made["by hand"].glob("date=*")]
    versions = [
        content_versions({place.name.removeprefix("date="): sorted(place.glob("*.parquet")) for place in days})
        for days in places
    ]
    assert len(versions[0]) == 181
    same = sum(versions[0][day] == versions[1].get(day) for day in versions[0])
    print(f"days with equal rows {same} of {len(versions[0])}\n")
    stop(spark)
    assert same == 181, "the two do not compute the same rows"


def processor_seconds() -> float:
    """Used by this process and its JVM so far; where there is no /proc, by this process."""
    from pyspark import SparkContext

    gateway: Any = SparkContext._gateway
    stat = Path(f"/proc/{gateway.proc.pid}/stat")
    ticks = sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) if stat.exists() else 0
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def as_processes(folder: Path, rounds: int) -> None:
    """Both in turns as whole processes: Python, JVM, all."""
    busy: dict[str, list[float]] = {name: [] for name in VARIANTS}

    def once(name: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "benchmarks.features", "--one", name, str(folder)]
        seconds = common.seconds(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return seconds

    found = common.alternate({name: partial(once, name) for name in VARIANTS}, rounds=rounds, warm_up=0)
    print("## As whole processes\n")
    print(common.ratios(found, unit="s", against="by hand"))
    print("\nProcessor time:\n")
    print(common.ratios(busy, unit="s", against="by hand"))
    ratio = statistics.median(found["ours"]) / statistics.median(found["by hand"])
    print(f"\nours / by hand       {common.Wish(ratio, at_most=1.3)}")


if __name__ == "__main__":
    main()
