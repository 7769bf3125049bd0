"""The flights from an empty home to a registered model: how long each stage takes, and the memory of all processes.

`ml-platform land` and `ml-platform run` as `make run` calls them, in a fresh home; memory is the sum of the
proportional set sizes (PSS: shared pages counted once) of the process and all it started, looked at twice a second.
Idle time is wall time in which no more than a tenth of one core was used. Wanted: a peak under 4 GiB, nothing idle.

    python -m benchmarks.run [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import common

EVERY_SECONDS = 0.5
IDLE_SHARE = 0.1
MOST_GIB = 4.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Watched:
    """One command: seconds of wall, CPU and idleness, peak memory in GiB, and what it printed."""

    wall: float = 0.0
    cpu: float = 0.0
    idle: float = 0.0
    peak: float = 0.0
    peak_of: dict[str, float] = field(default_factory=dict)
    output: str = ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(common.header("From an empty home to a registered model"))
    cold, again = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            landed = watch("land", home)
            cold.append(watch("run", home))
            again.append(watch("run", home))
    table = common.Table(["stage", "median s", "least", "most"])
    table.add("(landing the data)", landed.wall, landed.wall, landed.wall)
    stages = [stage_seconds(run.output) for run in cold]
    for name in stages[0]:
        values = [found[name] for found in stages]
        table.add(name, statistics.median(values), min(values), max(values))
    walls = [run.wall for run in cold]
    table.add("whole run", statistics.median(walls), min(walls), max(walls))
    table.add("run again, nothing to do", *(f([run.wall for run in again]) for f in (statistics.median, min, max)))
    print(table)
    middle = sorted(cold, key=lambda run: run.wall)[len(cold) // 2]
    print(f"\nCPU {middle.cpu:.0f} s of {middle.wall:.0f} s wall; idle {middle.idle:.1f} s")
    peak = max(run.peak for run in cold)
    shown = ", ".join(f"{name} {size:.2f}" for name, size in sorted(middle.peak_of.items(), key=lambda i: -i[1])[:4])
    print(f"peak memory {peak:.2f} GiB (wanted < {MOST_GIB}: {'yes' if peak < MOST_GIB else 'NO'}); then: {shown}")


def watch(command: str, home: Path) -> Watched:
    """Run `ml-platform COMMAND nyc_flights` and look at it until it ends."""
    found = Watched()
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", command, "nyc_flights"],
            env={**os.environ, "ML_PLATFORM_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        seen: dict[int, float] = {}
        while process.poll() is None:
            before = sum(seen.values())
            memory: dict[str, float] = {}
            for pid in family(process.pid):
                try:
                    seen[pid] = max(seen.get(pid, 0), cpu_seconds(pid))
                    memory[name_of(pid)] = memory.get(name_of(pid), 0) + pss_gib(pid)
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue  # it has ended in between
            if sum(memory.values()) > found.peak:
                found.peak, found.peak_of = sum(memory.values()), memory
            if sum(seen.values()) - before < IDLE_SHARE * EVERY_SECONDS:
                found.idle += EVERY_SECONDS
            time.sleep(EVERY_SECONDS)
        found.wall, found.cpu = time.monotonic() - started, sum(seen.values())
        output.seek(0)
        found.output = output.read()
    if process.returncode:
        raise SystemExit(f"ml-platform {command} ended with {process.returncode}:\n{found.output[-3000:]}")
    return found


def stage_seconds(output: str) -> dict[str, float]:
    """The stages' seconds from the summary's table."""
    rows = re.findall(r"^(\w+) +(?:[\d-]+ +){5}([\d.]+) *$", output, re.MULTILINE)
    return {name: float(seconds) for name, seconds in rows}


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def pss_gib(pid: int) -> float:
    """Proportional set size."""
    match = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) / 2**20 if match else 0.0


def name_of(pid: int) -> str:
    """What a process is, in a word."""
    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    words = {
        "training.job": "rank",
        "launch.agent": "torchrun",
        "java": "Spark's JVM",
        "ml_platform.cli": "ml-platform",
    }
    return next((name for part, name in words.items() if part in command), "other")


if __name__ == "__main__":
    main()
