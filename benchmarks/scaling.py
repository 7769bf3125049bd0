"""Strong scaling: rows a second of a training job with one process and with several, the global batch being the same.

Each measurement is a whole job as the platform runs it (torchrun, DistributedDataParallel over gloo, one thread a
process), of which the first epoch is left out. Beside it, what the machine itself gives: as many jobs of one process
side by side, each with its share of the rows and of the batch, which never wait for each other. Wanted: 2 processes /
1 process >= 1.6 on 2 cores.

    python -m benchmarks.scaling [--processes N] [--rows N] [--batch-size N] [--rounds N]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import common
from benchmarks.training import CARDINALITIES, NUMERIC, job_on, make
from ml_platform import launch
from ml_platform.launch.local import LocalLauncher
from ml_platform.pipeline import Recipe

WANTED = 1.6


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--batch-size", type=int, default=4096, help="over all processes")
    parser.add_argument("--epochs", type=int, default=5, help="of each job; the first is not counted")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.processes
    print(common.header("Strong scaling of training", libraries=("torch", "pyarrow", "numpy")))
    print(f"{options.rows:,} rows, {len(NUMERIC)} numeric and {len(CARDINALITIES)} categorical features, ", end="")
    print(f"global batch {options.batch_size}, one thread a process, {options.epochs} epochs a job\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make(folder, options.rows)
        launcher, number = LocalLauncher(folder / "work"), itertools.count()

        def speed(files: list[str], processes: int, batch_size: int) -> float:
            """Rows a second of one job: the median over its epochs but the first."""
            recipe = Recipe(
                model="ml_platform.training.models:mlp",
                batch_size=batch_size,
                processes=processes,
                epochs=options.epochs,
                threads=1,
            )
            job = job_on(files, recipe)
            result = launch.run(launcher, name=f"job-{next(number)}", job=job)
            return statistics.median(epoch["samples_per_second"] for epoch in result.history["epochs"][1:])

        def side_by_side() -> float:
            with ThreadPoolExecutor(count) as pool:
                each = [pool.submit(speed, files[i::count], 1, options.batch_size // count) for i in range(count)]
                return sum(job.result() for job in each)

        found = common.alternate(
            {
                "1 process": lambda: speed(files, 1, options.batch_size),
                f"{count} processes": lambda: speed(files, count, options.batch_size),
                f"{count} jobs of 1 process side by side": side_by_side,
            },
            rounds=options.rounds,
            warm_up=0,
        )
    print(common.ratios(found, unit="rows/s", against="1 process"), "\n")
    alone, together, apart = (statistics.median(values) for values in found.values())
    wish = common.Wish(together / alone, at_least=WANTED * count / 2)
    print(f"{count} processes / 1 process: {wish}")
    print(f"of what the machine gives to {count} jobs side by side: {together / apart:.0%}")
    sys.exit(not wish.granted)


if __name__ == "__main__":
    main()
