"""A training job of which something is killed at any moment: it ends with the same bytes, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform import launch
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.checkpoint import folder as checkpoints
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import CONTENT, FolderResult, read_result
from ml_platform_tests.launch.conftest import paths, pids, processes, wait_until
from ml_platform_tests.training import made

__all__ = ["paths"]

SEED = 20130209
MOMENTS = 35
QUICK = 1
"""Of the moments, how many are tried in every test run."""
NAME = "disturbed"

ORCHESTRATOR = """
import sys
from pathlib import Path
from ml_platform import launch
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.checkpoint import folder as checkpoints
from ml_platform.training.config import TrainingJob
job = TrainingJob.from_json(Path(sys.argv[2]).read_bytes())
launch.run(LocalLauncher(Path(sys.argv[1])), name=sys.argv[3], job=job, log=lambda line: print(line, flush=True))
"""


def kill(number: signal.Signals, *found: int) -> None:
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def ranks(folder: Path) -> list[int]:
    return sorted(pids("-m ml_platform.training.job", folder))


def agent(folder: Path) -> list[int]:
    return pids("-m ml_platform.launch.agent", folder)


def damage(folder: Path) -> None:
    """Kill the job, and cut the newest checkpoint short."""
    kill(signal.SIGKILL, *agent(folder), *ranks(folder))
    place = checkpoints.place_of(folder / "model")
    for newest in checkpoints.listed(place)[:1]:
        part = next((place / newest).glob("*.distcp"))
        part.write_bytes(part.read_bytes()[:-50])


FAULTS: dict[str, Callable[[Path, subprocess.Popen[str]], None]] = {
    "the orchestrator": lambda folder, parent: parent.kill(),
    "a worker": lambda folder, parent: kill(signal.SIGKILL, *ranks(folder)[-1:]),
    "the first worker": lambda folder, parent: kill(signal.SIGKILL, *ranks(folder)[:1]),
    "torchrun": lambda folder, parent: kill(signal.SIGKILL, *agent(folder)),
    "the whole job": lambda folder, parent: kill(signal.SIGKILL, *agent(folder), *ranks(folder)),
    "a worker, which is asked to end": lambda folder, parent: kill(signal.SIGTERM, *ranks(folder)[-1:]),
    "the whole job and its newest checkpoint": lambda folder, parent: damage(folder),
}


def moments() -> list[tuple[str, float]]:
    """What is killed, and at which share of the time that training takes."""
    chance = random.Random(SEED)
    return [(list(FAULTS)[number % len(FAULTS)], chance.random()) for number in range(MOMENTS)]


def slow(files: list[str]) -> TrainingJob:
    trouble = {"model": "ml_platform_tests.training.models:troubled", "hyperparameters": {"trouble": "slow"}}
    return made.job(files, epochs=5, checkpoint_seconds=0.1, restarts=5, **trouble)


@pytest.fixture(scope="module")
def undisturbed(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> FolderResult:
    return launch.run(LocalLauncher(tmp_path_factory.mktemp("undisturbed")), name=NAME, job=slow(paths))


@pytest.mark.parametrize(
    ("who", "share"),
    [pytest.param(*m, marks=[] if n < QUICK else pytest.mark.slow) for n, m in enumerate(moments())],
)
def test_a_job_of_which_something_is_killed_ends_with_the_same_bytes(
    undisturbed: FolderResult,
    paths: list[str],
    tmp_path: Path,
    who: str,
    share: float,
) -> None:
    work, spec = tmp_path / "work", tmp_path / "spec.json"
    folder = work / NAME
    spec.write_text(slow(paths).to_json())
    command = [sys.executable, "-c", ORCHESTRATOR, str(work), str(spec), NAME]

    def orchestrator() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    with orchestrator() as parent:
        assert parent.stdout is not None
        assert any("steps an epoch" in line for line in parent.stdout)
        time.sleep(share * sum(epoch["seconds"] for epoch in undisturbed.history["epochs"]))
        FAULTS[who](folder, parent)
        said = parent.stdout.read()
    if parent.returncode:
        assert who == "the orchestrator", said
        wait_until(lambda: not processes(folder), what="the job's processes to end")
        with orchestrator() as parent:
            assert parent.stdout is not None
            said = parent.stdout.read()
    assert parent.returncode == 0, said
    result = read_result(folder / "model")
    assert result is not None
    assert all((result.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes() for name in CONTENT)
    assert not processes(folder)
    assert list(folder.glob(".*")) == [], "no checkpoint is left"
