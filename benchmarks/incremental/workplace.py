"""The folder in which a benchmark works, and what its parts share: each thing is made when it is first asked for."""

from __future__ import annotations

import functools
import os
import sqlite3
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from benchmarks import common
from benchmarks.incremental import made, processes
from benchmarks.run import family

FLYTEKIT = "1.16.31"
EVERY_SECONDS = 0.2
LAUNCHER = b"org.apache.spark.launcher.Main"


@dataclass(frozen=True)
class Built:
    """A home in which everything was built once: by which process, in how many Dagster runs and Spark JVMs."""

    home: Path
    environment: dict[str, str]
    sample: processes.Sample
    runs: int
    jvms: int


class Workplace:
    """Made in a temporary folder; `reps` is how often whatever is timed is repeated."""

    def __init__(self, folder: Path, *, reps: int) -> None:
        self.folder, self.reps = folder, reps

    @functools.cached_property
    def package(self) -> Path:
        """The folder that holds the package `made`."""
        folder = self.folder / "package"
        made.write(folder)
        return folder

    def new(self, name: str) -> Path:
        """An empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    def landed(self, count: int) -> Path:
        """A new home in which so many batches of `made` have landed."""
        home = self.new("home")
        made.land(home / "landing", made.days(count))
        return home

    @functools.cached_property
    def year(self) -> Built:
        """365 batches of `made`, up to the registered model."""
        home = self.landed(365)
        return _build(made.NAME, home, made.environment(self.package, home))

    @functools.cached_property
    def flights(self) -> Built:
        """The 181 days of flights, up to the registered model."""
        home = self.new("flights")
        environment = {**os.environ, "ML_PLATFORM_HOME": str(home), "ML_PLATFORM_SETTLE_SECONDS": "0"}
        processes.python("-m", "ml_platform.cli", "land", "nyc_flights", environment=environment)
        return _build("nyc_flights", home, environment)

    @functools.cached_property
    def flytekit(self) -> Path | None:
        """A Python that has flytekit, in an environment of its own; None, with a remark, where it cannot be had."""
        return common.own_python(f"flytekit=={FLYTEKIT}")

    def dagster_home(self) -> tuple[Path, dict[str, str]]:
        """A folder for a script of plain Dagster, its instance's databases made; and its environment."""
        folder = self.new("dagster")
        home = folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        environment = {**os.environ, "DAGSTER_HOME": str(home)}
        processes.python(
            "-c", "import dagster; dagster.DagsterInstance.get().get_runs(limit=1)", environment=environment
        )
        return folder, environment


def _build(name: str, home: Path, environment: dict[str, str]) -> Built:
    jvms: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_SECONDS):
            jvms.update(spark_jvms(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        sample = processes.python("-m", "ml_platform.cli", "run", name, environment=environment)
    finally:
        over.set()
        watcher.join()
    return Built(home, environment, sample, dagster_runs(home), len(jvms))


def spark_jvms(pid: int) -> set[int]:
    """Spark's JVMs among what a process has started. Spark's launcher, a short-lived JVM before each, is none."""
    found = set()
    for child in family(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended in between
        if b"java" in command.partition(b"\0")[0] and b"SparkSubmit" in command and LAUNCHER not in command:
            found.add(child)
    return found


def dagster_runs(home: Path) -> int:
    """How many Dagster runs a home has seen."""
    with sqlite3.connect(home / "dagster" / "history" / "runs.db") as db:
        return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])


def artifacts(home: Path) -> int:
    """How many artifacts a home's store has."""
    return sum(1 for _ in (home / "store" / "manifests").rglob("*.json"))
