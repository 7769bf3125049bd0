"""How good the data gate is: how often it alarms where nothing is wrong, and how often it does where something is.

    python -m benchmarks.gates [--only alarms detection stationary] [--trials N] [--seed N] [--days odd|even|all]

    alarms      the 181 real days in order, default settings: at most 2 % of days rejected, each with its reason
    detection   faults put into real days: at least 99 % of the gross and 80 % of the subtle ones rejected
    stationary  made data that never changes: false alarms where no threshold was looked for

How fast it is, beside others: `python -m benchmarks.gates.speed`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import common
from benchmarks.gates import alarms, detection, stationary

PARTS = ("alarms", "detection", "stationary")
PARITY = {"odd": (1,), "even": (0,), "all": (0, 1)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--trials", type=int, default=40, help="of each fault")
    parser.add_argument("--seed", type=int, default=2013)
    parser.add_argument("--days", choices=tuple(PARITY), default="even", help="thresholds were set on the odd ones")
    options = parser.parse_args()
    print(common.header("The data gate", libraries=("polars", "pandera", "numpy", "datasketches", "pyarrow")))
    with tempfile.TemporaryDirectory() as name:
        folder, done = Path(name), None
        for part in options.only:
            print(f"\n## {part}\n", flush=True)
            begun = time.monotonic()
            if part == "stationary":
                stationary.measure(options.seed)
            elif part == "alarms" or done is None:
                done = alarms.measure(folder)
            if part == "detection" and done is not None:
                detection.measure(
                    folder,
                    done,
                    trials=options.trials,
                    seed=options.seed,
                    which=lambda day: int(day[-2:]) % 2 in PARITY[options.days],
                )
            print(f"\n({time.monotonic() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
