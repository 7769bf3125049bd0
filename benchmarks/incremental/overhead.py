"""What a stage costs beside its body: a chain of 50 trivial stages against one of 2, ours and plain Dagster's."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks import common
from benchmarks.incremental import processes
from benchmarks.incremental.report import Row, ratio
from benchmarks.incremental.workplace import Workplace

SHORT, LONG = 2, 50
SCRIPT = processes.ROOT / "benchmarks" / "incremental" / "peers" / "dagster_chain.py"
MEMORY = Path("/dev/shm")


def measure(work: Workplace) -> list[Row]:
    """At most 1.2 times plain Dagster in process, with versions, manifests and fsync."""

    def plain(count: int) -> processes.Sample:
        folder, environment = work.dagster_home()
        return processes.python(SCRIPT, environment={**environment, "COUNT": str(count)}, folder=folder)

    def ours(count: int, root: Path) -> processes.Sample:
        home = Path(tempfile.mkdtemp(dir=root))
        try:
            return processes.python("-m", "benchmarks.incremental.trivial", "chain", work.package, home, str(count))
        finally:
            shutil.rmtree(home)

    variants = {
        f"{name}, {count}": lambda body=body, count=count: body(count)
        for name, body in {
            "plain Dagster": plain,
            "ml_platform": lambda count: ours(count, work.folder),
            **({"ml_platform in memory": lambda count: ours(count, MEMORY)} if MEMORY.is_dir() else {}),
        }.items()
        for count in (SHORT, LONG)
    }
    found = {name: processes.median(samples) for name, samples in processes.in_turns(variants, work.reps).items()}
    table = common.Table(["chain", f"{SHORT} stages s", f"{LONG} stages s", "s a stage", "CPU s a stage"])
    slopes = {}
    for name in dict.fromkeys(key.rpartition(",")[0] for key in found):
        short, long = found[f"{name}, {SHORT}"], found[f"{name}, {LONG}"]
        slopes[name] = [(long.wall - short.wall) / (LONG - SHORT), (long.cpu - short.cpu) / (LONG - SHORT)]
        table.add(name, short.wall, long.wall, *slopes[name])
    print(table)
    return [
        ratio(f"a trivial stage, {unit}", slopes["ml_platform"][i], slopes["plain Dagster"][i], 1.2, "plain Dagster")
        for i, unit in enumerate(("wall", "processor"))
    ]
