"""What a run costs when little or nothing has changed, beside what others need for the same, in one run.

Whole processes from spawn to reap, in turns, medians; the last table says of each thing what was wanted.

    python -m benchmarks.incremental [--only NAME ...] [--reps N] [--folder FOLDER]

    six       six stages: epochs edited and back, the feature code edited, a helper edited: which bodies run
    nothing   nothing to do, beside flytekit's local cache and beside importing Dagster
    many      `plan` at 10,000 batches
    changed   one changed day of 181 days of flights
    cold      365 x 3 trivial stages from nothing, beside plain Dagster
    overhead  what a stage costs, beside plain Dagster

flytekit is installed into an environment of its own under the temporary folder; where that cannot be done, it is said.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path

from benchmarks import common
from benchmarks.incremental.report import table
from benchmarks.incremental.workplace import Workplace

PARTS = ("six", "nothing", "many", "changed", "cold", "overhead")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="work on the disk that this folder is on")
    options = parser.parse_args()
    print(common.header("Little or nothing to do"))
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Workplace(Path(folder), reps=options.reps)
        for name in options.only:
            print(f"\n## {name}\n", flush=True)
            begun = time.monotonic()
            rows += importlib.import_module(f"benchmarks.incremental.{name}").measure(work)
            print(f"\n({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"\n## Wanted and found\n\n{table(rows)}")


if __name__ == "__main__":
    main()
