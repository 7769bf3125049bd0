"""What surviving costs: checkpoints while nothing happens, and the time from a killed worker to training again.

1. The same job in turns, with checkpoints as often as they are ever taken and with none, the same processes: seconds of
   its epochs, from the job's own history. Wanted: at most 3.5 % more.
2. A worker gets SIGKILL, or SIGTERM, in mid-training; from then to the first progress of the job that was started
   again, without the launcher's pause before it starts it, and how that divides. Wanted: at most 20 s, locally.
3. How long one checkpoint holds training up, and is behind it until it is safe, by the size of the state.

With `--kubernetes` it is a pod that is deleted, without and with time to end, on the cluster of ML_PLATFORM_KUBERNETES
and with the store of ML_PLATFORM_STORE (docs/kubernetes.md). All that Kubernetes takes is counted. Wanted: at most
45 s.

    python -m benchmarks.survival [--rows N] [--epochs N] [--rounds N] [--kubernetes]
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks import common
from benchmarks.training import job_on, make
from ml_platform import launch
from ml_platform.launch import State
from ml_platform.launch.kubernetes.cluster import index_of
from ml_platform.launch.kubernetes.launcher import KubernetesLauncher
from ml_platform.launch.kubernetes.manifests import object_name
from ml_platform.launch.local import LocalLauncher
from ml_platform.pipeline import Recipe
from ml_platform.settings import settings
from ml_platform.store import Store
from ml_platform.training.checkpoint.checkpoints import Checkpoints, Progress
from ml_platform.training.config import TrainingJob
from ml_platform.training.place import Place

NEVER, ALWAYS = 1e9, 1e-9
SIZES, LAYERS = (10, 200), 8
SETTLED = 5.0
"""Seconds for which a job trains before it is killed: for several checkpoints."""
PAUSE = 0.5
"""Seconds between the end of a lost job and its restart, here."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kubernetes", action="store_true", help="restarts only, on a cluster")
    options = parser.parse_args()
    print(common.header("Surviving: checkpoints and restarts", libraries=("torch", "pyarrow", "numpy")))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data = place / "data"
        data.mkdir()
        recipe = Recipe(
            model="ml_platform.training.models:mlp",
            hyperparameters={"hidden": [512, 256]},
            epochs=options.epochs,
        )
        job = job_on(make(data, options.rows), recipe)
        if options.kubernetes:
            granted = restart_of_pods(on_cluster(place), job, options.rounds)
        else:
            granted = overhead(LocalLauncher(place / "a"), job, options.rounds)
            granted &= restart(LocalLauncher(place / "b"), job, options.rounds)
            one(place, job, options.rounds)
    sys.exit(not granted)


def overhead(launcher: LocalLauncher, job: TrainingJob, rounds: int) -> bool:
    """Print part 1; whether the wish was granted."""
    taken: list[int] = []
    held: list[float] = []

    def train(name: str, checkpoint_seconds: float) -> float:
        own = replace(job, recipe=replace(job.recipe, checkpoint_seconds=checkpoint_seconds))
        history = launch.run(launcher, name=name, job=own).history
        launcher.remove(name)
        seconds = sum(epoch["seconds"] for epoch in history["epochs"])
        if checkpoint_seconds == ALWAYS:
            taken.append(history["checkpoints"]["taken"])
            held.append(history["checkpoints"]["held_up_seconds"] / seconds)
        return float(seconds)

    found = common.alternate(
        {"none": lambda: train("none", NEVER), "many": lambda: train("many", ALWAYS)}, rounds=rounds
    )
    print(common.ratios(found, unit="s", against="none"), "\n")
    print(f"checkpoints taken in a run: {min(taken)} to {max(taken)}; they held training up for ", end="")
    print(f"{statistics.median(held):.2%} of its time")
    wish = common.Wish(statistics.median(found["many"]) / statistics.median(found["none"]), at_most=1.035)
    print(f"with checkpoints / without: {wish}\n")
    return wish.granted


class _EnoughError(Exception):
    """What is measured was seen."""


@dataclass
class Restart:
    """When a job whose worker was killed came how far; `time.perf_counter` of each."""

    first: float = 0.0
    killed: float = 0.0
    lost: float = 0.0
    again: float = 0.0
    ready: float = 0.0

    def follow(self, line: str, kill: Callable[[], object]) -> None:
        """Take a line of the job's log. It is killed when it has had time for a checkpoint; the first progress of the
        next attempt is enough."""
        now = time.perf_counter()
        if "steps an epoch" in line and self.killed:  # the next attempt has its data, whether it finds a checkpoint
            self.ready = self.ready or now
        elif line.startswith("epoch") and self.ready:
            raise _EnoughError(now)
        elif line.startswith("epoch") and not self.killed:
            self.first = self.first or now
            if now - self.first >= SETTLED:
                self.killed = now
                kill()

    def look(self, status: launch.Status) -> None:
        """Take a status."""
        if status.state is State.LOST:
            self.lost = self.lost or time.perf_counter()
        elif status.state is State.RUNNING and self.lost:
            self.again = self.again or time.perf_counter()

    def run(self, launcher: launch.Launcher, name: str, job: TrainingJob, kill: Callable[[], object]) -> float:
        """Train until it was killed and has trained again; when it did."""
        many = replace(job.recipe, checkpoint_seconds=1.0, epochs=1000 * job.recipe.epochs)  # its end is not waited for
        own = replace(job, recipe=many, progress_seconds=0.2)
        try:
            launch.run(
                launcher,
                name=name,
                job=own,
                log=lambda line: self.follow(line, kill),
                on_status=self.look,
                pause_seconds=PAUSE,
            )
        except _EnoughError as enough:  # which cancels the job
            launcher.remove(name)
            return float(enough.args[0])
        raise AssertionError("the job came to its end")


def restart(launcher: LocalLauncher, job: TrainingJob, rounds: int) -> bool:
    """Print part 2; whether the wish was granted."""
    parts = ("noticed", "pause", "reads, meets the others", "trains")
    taken: dict[str, list[tuple[float, ...]]] = {}

    def lost(number: signal.Signals) -> float:
        name, seen = f"lost-{secrets.token_hex(4)}", Restart()
        trains = seen.run(launcher, name, job, lambda: os.kill(_worker(launcher.folder(name)), number))
        stamps = (seen.killed, seen.lost, seen.again, seen.ready, trains)
        taken.setdefault(number.name, []).append(tuple(b - a for a, b in itertools.pairwise(stamps)))
        return trains - seen.killed - (seen.again - seen.lost)

    found = common.alternate(
        {each.name: lambda each=each: lost(each) for each in (signal.SIGKILL, signal.SIGTERM)},  # type: ignore[misc]
        rounds=rounds,
        warm_up=0,
    )
    granted = _told(found, "a worker gets", "beyond the pause", at_most=20)
    table = common.Table(["a worker gets", *(f"{part}, s, median" for part in parts)])
    for name, times in taken.items():
        table.add(name, *map(statistics.median, zip(*times, strict=True)))
    print(f"\nwhere the time goes:\n\n{table}\n")
    return granted


def on_cluster(place: Path) -> KubernetesLauncher:
    """The launcher that the environment names."""
    own = settings()
    store = Store(own.store, cache=place / "cache", storage_options=own.storage_options)
    return KubernetesLauncher(own.kubernetes, store, place / "work")


def restart_of_pods(launcher: KubernetesLauncher, job: TrainingJob, rounds: int) -> bool:
    """Print part 2 as it is on a cluster; whether the wish was granted."""
    import kubernetes

    core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())

    def lost(grace: int | None) -> float:
        name, seen = f"lost-{secrets.token_hex(4)}", Restart()

        def kill() -> None:
            pod = next(p for p in launcher.cluster.pods(object_name(name)) if index_of(p) == 1)
            options = {} if grace is None else {"grace_period_seconds": grace}
            core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, **options)

        return seen.run(launcher, name, job, kill) - seen.killed

    found = common.alternate(
        {"no time to end": lambda: lost(0), "its grace period": lambda: lost(None)}, rounds=rounds, warm_up=0
    )
    return _told(found, "a deleted pod has", "in all", at_most=45)


def _told(found: dict[str, list[float]], what: str, counted: str, *, at_most: float) -> bool:
    table = common.Table([what, "s until it trains again, median", "least", "most", "runs"])
    for name, values in found.items():
        table.add(name, statistics.median(values), min(values), max(values), len(values))
    print(table)
    wish = common.Wish(max(statistics.median(values) for values in found.values()), at_most=at_most)
    print(f"\nthe slower one, seconds {counted}: {wish}")
    return wish.granted


def one(place: Path, job: TrainingJob, rounds: int) -> None:
    """Print part 3: layers of AdamW, one process, without the first checkpoint, which finds no memory to copy into."""
    table = common.Table(["MiB", "held up, ms, median", "most", "behind, s, median", "runs"])
    for mib in SIZES:
        width = int((mib * 2**20 / (3 * 4 * LAYERS)) ** 0.5)  # weights and two moments, float32
        module = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
        adjust = torch.optim.AdamW(module.parameters(), fused=True)
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        adjust.step()
        alone = replace(job, output=str(place / f"of-{mib}" / "model"), recipe=replace(job.recipe, processes=1))
        taken = Checkpoints(alone, Place(0, 1, "cpu", "none"), {})
        held, behind = list[float](), list[float]()
        for done in range(1, rounds + 2):
            taken.take(module, adjust, Progress(1, done, [], torch.zeros(100), 0.0), done)
            begun = time.perf_counter()
            taken.finish()
            held.append(taken.held_up - sum(held))
            behind.append(time.perf_counter() - begun)
        milliseconds = [1000 * seconds for seconds in held[1:]]
        table.add(mib, statistics.median(milliseconds), max(milliseconds), statistics.median(behind[1:]), rounds)
    print(f"\n{table}")


def _worker(folder: Path) -> int:
    """The process id of a rank of the job in that folder; not of the torchrun that has it as an argument."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    ranks = [line for line in listed.splitlines() if "-m ml_platform.training.job " in line and str(folder) in line]
    return int(ranks[-1].split()[0])


if __name__ == "__main__":
    main()
