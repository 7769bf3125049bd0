"""`plan` at 10,000 batches of three stages, beside the same command at one batch."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import common
from benchmarks.incremental import made, processes
from benchmarks.incremental.report import Row
from benchmarks.incremental.workplace import Workplace

COUNT = 10_000
MOST_SECONDS = 2.0
EDIT = ("* 2 +", "* 3 +")


def measure(work: Workplace) -> list[Row]:
    """Under 2 s beyond the start, which is the same command where there is one batch."""
    one = work.landed(1)
    environment = made.environment(work.package, one)
    select = ["--select", "raw_batch,validated_batch,features"]
    processes.python("-m", "ml_platform.cli", "run", made.NAME, *select, environment=environment)
    full = work.new("full") / "home"
    shutil.copytree(one, full)
    processes.python("-m", "benchmarks.incremental.fill", work.package, full, str(COUNT))
    edited = work.new("edited")
    shutil.copytree(work.package / made.NAME, edited / made.NAME)
    features = edited / made.NAME / "features.py"
    features.write_text(features.read_text().replace(*EDIT))
    variants = {
        "one batch": lambda: _plan(work.package, one),
        f"{COUNT:,}, all fresh": lambda: _plan(work.package, full),
        "one batch, feature code edited": lambda: _plan(edited, one),
        f"{COUNT:,}, feature code edited": lambda: _plan(edited, full),
    }
    for body in variants.values():
        body()
    found = {name: processes.median(samples) for name, samples in processes.in_turns(variants, work.reps).items()}
    table = common.Table(["plan", "wall s", "CPU s"])
    for name, sample in found.items():
        table.add(name, sample.wall, sample.cpu)
    print(table)
    rows = []
    for what in ("all fresh", "feature code edited"):
        small, large = found["one batch" if what == "all fresh" else f"one batch, {what}"], found[f"{COUNT:,}, {what}"]
        for unit, start, end in (("wall", small.wall, large.wall), ("processor", small.cpu, large.cpu)):
            more = f"{end - start:.2f} s beyond {start:.2f} s"
            rows.append(Row(f"plan at {COUNT:,} x 3, {what}, {unit}", more, "< 2 s", end - start < MOST_SECONDS))
    return rows


def _plan(package: Path, home: Path) -> processes.Sample:
    environment = made.environment(package, home)
    return processes.python("-m", "ml_platform.cli", "plan", made.NAME, environment=environment, statuses=(0, 2))
