"""One changed day of 181 days of flights: which bodies run, and what the batches' part costs beside the whole one's.

The JVM's start is left aside and printed: the session is started before the run. A JVM that has just started also
loads and compiles Spark's code at the first query, which shows beside further changes in the same one. That is judged
both ways: as part of the batch, and left aside of both.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks import common
from benchmarks.incremental import processes
from benchmarks.incremental.report import Row, equal, ratio
from benchmarks.incremental.workplace import Workplace, dagster_runs

NAME = "nyc_flights"
DAYS = 181
BATCH_PART = ("raw_batch", "validated_batch", "planes", "features")
BELOW = ("training_set", "baseline", "trained_model", "evaluation", "registered_model")
CHANGES = 4
PROCESSES = 2


def measure(work: Workplace) -> list[Row]:
    """Exactly the changed batch's stages and the chain below; at most 1/20 of the full batch part."""
    full = work.flights
    seconds = processes.stage_seconds(full.sample.output)
    before = dagster_runs(full.home)
    found = [_changes(work, start, whole=start == 0) for start in range(0, PROCESSES * CHANGES, CHANGES)]
    spent = dagster_runs(full.home) - before
    jvm = statistics.median(each["jvm"] for each in found)
    first = statistics.median(each["runs"][0]["batch part"] for each in found)
    later = statistics.median(run["batch part"] for each in found for run in each["runs"][1:])
    whole = sum(seconds[name] for name in BATCH_PART) - jvm
    warming = first - later
    table = common.Table(["flights", "s"])
    table.add("start of the JVM and its session", jvm)
    table.add(f"batch part of {DAYS} days, without that", whole)
    table.add("batch part of one changed day, the first thing in its JVM", first)
    table.add("batch part of one changed day, later in the same JVM", later)
    table.add("so loading and compiling Spark's code takes", warming)
    table.add("chain below", sum(found[0]["runs"][0]["seconds"][name] for name in BELOW))
    print(table)
    exactly = {**dict.fromkeys((name for name in BATCH_PART if name != "planes"), 1), **dict.fromkeys(BELOW, 1)}
    of_all = {**dict.fromkeys(BATCH_PART, DAYS), "planes": 1, **dict.fromkeys(BELOW, 1)}
    return [
        equal(f"{DAYS} days, from nothing: Dagster runs, Spark JVMs", (full.runs, full.jvms), (1, 1)),
        equal(f"{DAYS} days, from nothing: bodies", _named(processes.built(full.sample.output)), _named(of_all)),
        equal("one changed day: bodies", _named(found[0]["runs"][0]["built"]), _named(exactly)),
        equal("one changed day: Dagster runs for each change", spent / (len(found) * CHANGES), 1.0),
        ratio("batch part of one changed day, without the JVM's start", first, whole, 1 / 20, f"{DAYS} days"),
        ratio("the same, without Spark's first use either", later, whole - warming, 1 / 20, f"{DAYS} days"),
    ]


def _changes(work: Workplace, start: int, *, whole: bool) -> dict[str, Any]:
    """A process that starts a session and then, some times, changes a day and brings the flights up to date."""
    words = [str(start), str(CHANGES), "whole" if whole else "batches"]
    sample = processes.python("-m", "benchmarks.incremental.change", *words, environment=work.flights.environment)
    found: dict[str, Any] = json.loads(sample.output.splitlines()[-1])
    return found


def _named(built: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(built.items()))
