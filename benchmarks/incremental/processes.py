"""Whole processes, from spawn to reap: what they took, what they printed, and which modules they had imported."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""Where `ml_platform` and `benchmarks` are: what is started sees these, whatever else is installed."""
HEAVY = ("dagster", "torch", "mlflow", "pyspark", "py4j", "polars", "pandera", "pyarrow", "sklearn")


@dataclass(frozen=True)
class Sample:
    """One process and all that it started and waited for: wall and processor seconds, exit status, output."""

    wall: float
    cpu: float
    status: int
    output: str


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    statuses: Sequence[int] = (0,),
) -> Sample:
    """Run a command.

    Raises:
        RuntimeError: it ended with another status than those expected; with the end of its output.
    """
    with tempfile.TemporaryFile("w+") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode not in statuses:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{text[-3000:]}")
    return Sample(wall, used.ru_utime + used.ru_stime, process.returncode, text)


def python(*words: str | Path, **more: Any) -> Sample:
    """Run this Python with these words, from the project's root. The options are those of `run`."""
    return run([sys.executable, "-W", "ignore", *words], **more)


def imported(sample: Sample) -> set[str]:
    """Which of the heavy packages a process run with `-X importtime` has imported."""
    lines = (line.rpartition("|")[2].strip() for line in sample.output.splitlines() if line.startswith("import time:"))
    return {name.partition(".")[0] for name in lines} & set(HEAVY)


def median(samples: Sequence[Sample]) -> Sample:
    """Median wall and median processor seconds."""
    wall, cpu = (statistics.median(values) for values in zip(*((s.wall, s.cpu) for s in samples), strict=True))
    return Sample(wall, cpu, samples[0].status, samples[0].output)


def in_turns(variants: Mapping[str, Callable[[], Sample]], reps: int) -> dict[str, list[Sample]]:
    """Each variant as often, forwards in one round and backwards in the next."""
    found: dict[str, list[Sample]] = {name: [] for name in variants}
    for turn in range(reps):
        for name in list(variants)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(variants[name]())
    return found


def built(output: str) -> dict[str, int]:
    """How many bodies ran, from the table that `ml-platform run` prints; stages where none did are left out."""
    rows = re.findall(r"^(\w+) +([\d-]+) +(?:[\d-]+ +){4}[\d.]+ *$", output, re.MULTILINE)
    return {name: int(count) for name, count in rows if count != "-"}


def stage_seconds(output: str) -> dict[str, float]:
    """Seconds of each stage, from the same table."""
    rows = re.findall(r"^(\w+) +(?:[\d-]+ +){5}([\d.]+) *$", output, re.MULTILINE)
    return {name: float(seconds) for name, seconds in rows}
