"""Nothing to do: 365 batches of three stages and the chain below, beside flytekit's local cache with as many tasks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from benchmarks import common
from benchmarks.incremental import made, processes
from benchmarks.incremental.report import Row, equal, ratio
from benchmarks.incremental.workplace import FLYTEKIT, Built, Workplace, artifacts, dagster_runs

DAYS = 365
SCRIPT = processes.ROOT / "benchmarks" / "incremental" / "peers" / "flyte_daily.py"
START = "import dagster, ml_platform.pipelines.nyc_flights.pipeline"
SEEN = "1.1 s was seen of flytekit on the machine where it was measured; its start alone took 0.6 s"
UNWANTED = {"torch", "mlflow", "pyspark", "py4j", "dagster"}


def measure(work: Workplace) -> list[Row]:
    """At most flytekit's time; of the flights, at most 1.5 times the import of Dagster and the pipeline."""
    rows = [*_bare(made.NAME, work.year), *_bare("nyc_flights", work.flights)]
    variants = {
        f"ml_platform, {DAYS} x 3 and 5": lambda: _again(made.NAME, work.year),
        "ml_platform, 181 days of flights": lambda: _again("nyc_flights", work.flights),
        "import dagster and the pipeline": lambda: processes.python("-c", START),
    }
    if work.flytekit is not None:
        folder = work.new("flyte")
        shutil.copytree(work.year.home / "landing" / made.NAME / "numbers", folder / "data")
        shutil.copy(SCRIPT, folder)
        command: list[str | Path] = [work.flytekit, "-W", "ignore", SCRIPT.name]
        environment = {**os.environ, "HOME": str(folder), "FLYTE_SDK_LOGGING_LEVEL": "40"}
        cold = processes.run(command, environment=environment, folder=folder)
        assert cold.output.count("body") == 3 * DAYS + 1, cold.output[-500:]
        flyte = f"flytekit {FLYTEKIT}, {3 * DAYS + 1} tasks"
        variants[flyte] = lambda: processes.run(command, environment=environment, folder=folder)
    found = processes.in_turns(variants, work.reps + 2)
    table = common.Table(["nothing to do", "wall s", "least", "most", "CPU s"])
    medians = {name: processes.median(samples) for name, samples in found.items()}
    for name, sample in medians.items():
        walls = [each.wall for each in found[name]]
        table.add(name, sample.wall, min(walls), max(walls), sample.cpu)
    print(table)
    ours, flights, start, *theirs = medians.values()
    if theirs:
        assert "body" not in theirs[0].output
        rows.append(ratio(f"{DAYS} x 3, wall", ours.wall, theirs[0].wall, 1, "flytekit"))
        rows.append(ratio(f"{DAYS} x 3, processor", ours.cpu, theirs[0].cpu, 1, "flytekit"))
    else:
        rows.append(Row(f"{DAYS} x 3, wall", f"{ours.wall:.3g} s; {SEEN}", "<= 1.1 s", ours.wall <= 1.1))
    rows.append(ratio("181 days of flights, wall", flights.wall, start.wall, 1.5, "imports"))
    rows.append(ratio("181 days of flights, processor", flights.cpu, start.cpu, 1.5, "imports"))
    return rows


def _again(name: str, built: Built) -> processes.Sample:
    sample = processes.python("-m", "ml_platform.cli", "run", name, environment=built.environment)
    assert not processes.built(sample.output), sample.output
    return sample


def _bare(name: str, built: Built) -> list[Row]:
    """What a run with nothing to do must leave alone."""
    before = artifacts(built.home), dagster_runs(built.home)
    sample = processes.python("-X", "importtime", "-m", "ml_platform.cli", "run", name, environment=built.environment)
    after = artifacts(built.home), dagster_runs(built.home)
    heavy = processes.imported(sample)
    print(f"{name}, nothing to do: of {', '.join(processes.HEAVY)} it imports: {', '.join(sorted(heavy)) or 'none'}")
    return [
        equal(f"{name}: unwanted imports (so no JVM)", ", ".join(sorted(heavy & UNWANTED)), ""),
        equal(f"{name}: new artifacts, new runs", tuple(a - b for a, b in zip(after, before, strict=True)), (0, 0)),
    ]
