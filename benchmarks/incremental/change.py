"""Changes days of the flights, one after the other, and brings the pipeline up to date after each, in one JVM.

    python -m benchmarks.incremental.change START COUNT whole|batches

`whole`: the first time with the chain below. Prints JSON: how long the session's start took, and of each run how many
bodies ran and how many seconds each stage took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.settings import Settings
from ml_platform.stages.run import EVERYTHING, Request, run_pipeline
from ml_platform.stages.spark import builder, spark_config, stop

BATCH_PART = ("raw_batch", "validated_batch", "planes", "features")
LATE = 60.0


def main() -> None:
    """The command line."""
    start, count, what = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = Settings()
    begun = time.perf_counter()
    config = spark_config(master=settings.spark_master, memory=settings.spark_memory, scratch=settings.home / "spark")
    session = builder(config).getOrCreate()
    jvm = time.perf_counter() - begun
    days = sorted(Path(settings.landing, PIPELINE.name, "flights").glob("*.parquet"))
    runs = []
    for number in range(start, start + count):
        make_late(days[number])
        everything = what == "whole" and number == start
        summary = run_pipeline(PIPELINE, settings, EVERYTHING if everything else Request(select=BATCH_PART))
        if summary.problems:
            raise RuntimeError(str(summary.problems))
        seconds = {stage.name: stage.seconds for stage in summary.stages}
        runs.append(
            {
                "built": {stage.name: stage.built for stage in summary.stages if stage.built},
                "seconds": seconds,
                "batch part": sum(seconds[name] for name in BATCH_PART),
            }
        )
    stop(session)
    print(json.dumps({"jvm": jvm, "runs": runs}))


def make_late(path: Path) -> None:
    """Make the first flight late that was not."""
    table = pq.read_table(path)
    delays = table["arr_delay"]
    row = pc.index(pc.less(delays, 0), pa.scalar(True)).as_py()
    changed = delays.to_pylist()
    changed[row] = LATE
    place = table.schema.get_field_index("arr_delay")
    table = table.set_column(place, "arr_delay", pa.array(changed, delays.type))
    temporary = path.with_name(f".{path.name}")
    pq.write_table(table, temporary)
    temporary.replace(path)


if __name__ == "__main__":
    main()
