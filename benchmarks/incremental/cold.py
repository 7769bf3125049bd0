"""365 batches of three trivial stages and one over all, from nothing: one run, beside plain Dagster's single run."""

from __future__ import annotations

import shutil

from benchmarks import common
from benchmarks.incremental import made, processes
from benchmarks.incremental.report import Row, equal, ratio
from benchmarks.incremental.workplace import Workplace, dagster_runs

DAYS = 365
BODIES = 3 * DAYS + 1
SCRIPT = processes.ROOT / "benchmarks" / "incremental" / "peers" / "dagster_daily.py"


def measure(work: Workplace) -> list[Row]:
    """At most half of plain Dagster with a single-run backfill."""
    runs = []

    def plain() -> processes.Sample:
        folder, environment = work.dagster_home()
        shutil.copytree(work.landed(DAYS) / "landing" / made.NAME / "numbers", folder / "data")
        return processes.python(SCRIPT, environment={**environment, "DAYS": str(DAYS)}, folder=folder)

    def ours() -> processes.Sample:
        home = work.landed(DAYS)
        sample = processes.python("-m", "benchmarks.incremental.trivial", "daily", work.package, home, str(DAYS))
        assert f"bodies {BODIES}\n" in sample.output, sample.output
        runs.append(dagster_runs(home))
        return sample

    found = processes.in_turns({"plain Dagster, one run": plain, "ml_platform": ours}, work.reps)
    table = common.Table(["variant", "wall s", "CPU s", "runs"])
    medians = {name: processes.median(samples) for name, samples in found.items()}
    for name, sample in medians.items():
        table.add(name, sample.wall, sample.cpu, len(found[name]))
    print(table)
    theirs, mine = medians.values()
    what = f"{DAYS} x 3 trivial stages from nothing"
    return [
        ratio(f"{what}, wall", mine.wall, theirs.wall, 0.5, "plain Dagster"),
        ratio(f"{what}, processor", mine.cpu, theirs.cpu, 0.5, "plain Dagster"),
        equal(f"{what}: Dagster runs", max(runs), 1),
    ]
