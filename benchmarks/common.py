"""What benchmarks share: a header of hardware, versions and command; alternating runs; medians and their ratios.

Nothing is judged by one run: variants take turns, in changing order, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LIBRARIES = ("torch", "pyarrow", "polars", "pandas", "numpy", "pyspark", "dagster", "pandera", "scikit-learn", "mlflow")


def header(title: str, *, libraries: Sequence[str] = LIBRARIES) -> str:
    """What was measured, when, on what, with which versions, by which command. Print it first."""
    lines = [
        f"# {title}",
        f"date      {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        f"machine   {hardware()}",
        f"load      {', '.join(f'{load:.1f}' for load in os.getloadavg())} (1, 5, 15 minutes, before)",
        f"versions  Python {platform.python_version()}, "
        + ", ".join(f"{n} {v}" for n, v in versions(libraries).items()),
        f"command   {command()}",
        "",
    ]
    return "\n".join(lines)


def hardware() -> str:
    """Processor, cores that may be used, memory, operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Installed versions; what is not installed is left out."""
    found = {}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command that repeats this."""
    main = sys.modules["__main__"].__spec__
    program = ["-m", main.name.removesuffix(".__main__")] if main else [sys.argv[0]]
    return shlex.join(["python", *program, *sys.argv[1:]])


def own_python(*packages: str) -> Path | None:
    """A Python that has these packages, each "name==version", in an environment of its own under the temporary folder.

    What others need must not get in the way of what the project needs. It is made once and kept. None, with a remark,
    where it cannot be had.
    """
    name = "-".join(package.replace("==", "-").partition("[")[0] for package in packages)
    place = Path(tempfile.gettempdir()) / f"ml_platform-{name}"
    interpreter, ready = place / "bin" / "python", place / "ready"
    if not ready.exists():
        shutil.rmtree(place, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", place], check=True, capture_output=True)
            subprocess.run([interpreter, "-m", "pip", "install", "-q", *packages], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            print(f"{' '.join(packages)} cannot be installed here: {error.stderr.decode()[-300:]}")
            return None
        ready.touch()
    return interpreter


def seconds(body: Callable[[], object]) -> float:
    """How long `body` takes, in seconds."""
    begun = time.perf_counter()
    body()
    return time.perf_counter() - begun


def alternate(
    variants: Mapping[str, Callable[[], float]], *, rounds: int = 5, warm_up: int = 1
) -> dict[str, list[float]]:
    """Measure variants in turns: forwards in one round, backwards in the next.

    Args:
        variants: each returns one measurement, such as `lambda: seconds(body)`.
        rounds: measurements of each.
        warm_up: rounds before, not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-warm_up, rounds):
        names = list(variants)[:: 1 if turn % 2 == 0 else -1]
        for name in names:
            value = variants[name]()
            if turn >= 0:
                found[name].append(value)
    return found


@dataclass
class Wish:
    """What a ratio should come to."""

    ratio: float
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        bound = f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"
        return f"{self.ratio:.2f} (wanted {bound}: {'yes' if self.granted else 'NO'})"

    @property
    def granted(self) -> bool:
        """Whether it does."""
        return self.ratio >= self.at_least if self.at_least is not None else self.ratio <= (self.at_most or 0)


@dataclass
class Table:
    """A table in Markdown, its columns aligned: numbers to the right."""

    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add a row; floats are rounded to four digits."""
        self.rows.append([_cell(cell) for cell in cells])

    def __str__(self) -> str:
        lines = [list(self.columns), *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        rule = ["-" * width for width in widths]
        return "\n".join(
            "| "
            + " | ".join(
                c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            )
            + " |"
            for line in [lines[0], rule, *lines[1:]]
        )


def ratios(found: Mapping[str, Sequence[float]], *, unit: str, against: str) -> Table:
    """Median, least and most of each variant, and its median's ratio to that of the variant `against`."""
    table = Table(["variant", f"median {unit}", "least", "most", "runs", f"/ {against}"])
    base = statistics.median(found[against])
    for name, values in found.items():
        middle = statistics.median(values)
        table.add(name, middle, min(values), max(values), len(values), f"{middle / base:.2f}")
    return table


def _cell(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
