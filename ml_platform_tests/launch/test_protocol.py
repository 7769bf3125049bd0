"""What `launch.run` makes of a launcher whose machines come and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ml_platform import launch
from ml_platform.errors import TrainingError
from ml_platform.launch import State, Status
from ml_platform.launch.used import Used
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import FolderResult
from ml_platform_tests.training import made

SECONDS = 0.01
"""That a job runs for between two looks."""


class Flighty:
    """A launcher on whose GPUs no job stays for longer than a few looks.

    Args:
        gpus: by attempt: how many it finds. The last number holds for all further attempts.
    """

    messages = "log"

    def __init__(self, *gpus: int) -> None:
        self.gpus, self.launched, self.cancelled, self.used = gpus, 0, 0, Used()

    def launch(self, name: str, job: TrainingJob, *, env: Mapping[str, str] | None = None) -> Attempt:
        self.launched += 1
        return Attempt(self, self.gpus[min(self.launched, len(self.gpus)) - 1])

    def remove(self, name: str) -> bool:
        return True


class Attempt:
    """Runs, and is lost."""

    joined = False

    def __init__(self, launcher: Flighty, gpus: int) -> None:
        self._launcher, self._gpus, self._looks = launcher, gpus, 0

    def status(self) -> Status:
        self._looks += 1
        self._launcher.used = self._launcher.used.plus(SECONDS, self._gpus)
        state = State.RUNNING if self._looks <= 3 else State.LOST
        return Status(state, gpus=self._gpus, used=self._launcher.used)

    def logs(self) -> Iterator[str]:
        return iter([f"look {self._looks}"])

    def result(self) -> FolderResult:
        raise TrainingError("There is none.", where=Path())

    def cancel(self) -> None:
        self._launcher.cancelled += 1


def end(launcher: Flighty, **limits: float) -> TrainingError:
    job = made.job(["a.parquet"], restarts=50, **limits)
    with pytest.raises(TrainingError) as caught:
        launch.run(launcher, name="flighty", job=job, poll_seconds=0.0, pause_seconds=0.0)
    assert launcher.cancelled == 1
    return caught.value


def test_restarts_count_together_towards_the_ceiling() -> None:
    """An attempt takes 40 ms, on one GPU or on three; in all they may take a GPU-second."""
    launcher = Flighty(1, 3)
    error = end(launcher, gpu_hours=1.0 / 3600)
    assert "taken more GPU-hours" in str(error)
    assert 1 < launcher.launched < 51
    assert not error.passing


def test_restarts_count_together_towards_the_time_limit() -> None:
    launcher = Flighty(0)
    said = str(end(launcher, timeout_seconds=0.3, gpu_hours=1e-9))
    assert "run for longer than it may" in said
    assert "the last that it said:\n    look" in said
    assert 1 < launcher.launched < 51


def test_without_a_gpu_there_is_no_ceiling() -> None:
    assert "so were its 50 restarts" in str(end(Flighty(0), gpu_hours=1e-9))


def test_who_stops_it_does_not_wait_for_a_restart() -> None:
    launcher = Flighty(0)
    seen: list[Status] = []
    with pytest.raises(KeyboardInterrupt):
        launch.run(
            launcher,
            name="flighty",
            job=made.job(["a.parquet"]),
            on_status=seen.append,
            stopped=lambda: bool(seen) and seen[-1].state is State.WAITING,
            poll_seconds=0.0,
            pause_seconds=60.0,
        )
    assert (launcher.launched, launcher.cancelled) == (1, 1)
