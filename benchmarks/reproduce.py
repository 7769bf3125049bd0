"""The reference pipeline's champion, built once more from the bytes that landed, five times: is it the same each time?

A fresh home gets the flights and a champion by `ml-platform land` and `run`; then `ml-platform models reproduce` runs,
each time in a work area and a process of its own. Exact means that every data version of every stage and the weights'
SHA-256 are those of the record. Wanted: exact five times out of five on the same topology.

    python -m benchmarks.reproduce [--rounds N] [--home DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common

MODEL = "nyc_flights@champion"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, help="a home with a champion; a fresh one, when left out")
    options = parser.parse_args()
    print(common.header("A champion built once more from its raw bytes"))
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder) / "home"
        if options.home is None:
            for words in (["land", "nyc_flights"], ["run", "nyc_flights"]):
                started = time.perf_counter()
                command(words, home).check_returncode()
                print(f"ml-platform {' '.join(words)}: {time.perf_counter() - started:.0f} s")
        record = json.loads(command(["models", "show", MODEL, "--json"], home).stdout)
        artifacts = sum(map(len, record["artifacts"].values()))
        print(f"\n{artifacts} artifacts, weights {record['model']['weights']}")
        print(f"topology {record['topology']}\n")
        table = common.Table(["round", "exact", "ends with", "seconds"])
        exact = 0
        for number in range(1, options.rounds + 1):
            started = time.perf_counter()
            answer = command(["models", "reproduce", MODEL], home)
            took = time.perf_counter() - started
            same = answer.returncode == 0 and answer.stdout.count(record["model"]["weights"]) == 2
            exact += same
            table.add(number, "yes" if same else "NO", answer.returncode, round(took, 1))
            print(f"round {number}: {'exact' if same else answer.stdout + answer.stderr}, {took:.0f} s", flush=True)
        print(f"\n{table}\n\nexact {exact} of {options.rounds}")
        sys.exit(exact != options.rounds)


def command(words: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """`ml-platform` with these words, in a home."""
    environment = {**os.environ, "ML_PLATFORM_HOME": str(home)}
    program = [sys.executable, "-m", "ml_platform.cli", *words]
    return subprocess.run(program, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    main()
