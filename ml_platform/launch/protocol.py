"""The launcher protocol: start a training job or join the one that runs, follow it, take its result.

A job's name is its artifact's fingerprint, so two launches of one name are the same job: it runs once. A backend keeps
whatever it needs to find a job by name; a caller holds nothing but the name and the specification.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ml_platform.errors import TrainingError
from ml_platform.launch.used import Used
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import FolderResult

_SAID = 5
"""Lines of a job's log that the error of one which takes too long shows."""


class State(StrEnum):
    """Where a job stands. `waiting` is for machines, quota or another launch; it is not the job's own time."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It went wrong by itself: trying again would end the same way."""
    LOST = "lost"
    """Ended from outside: preempted, killed for memory, its machine gone. Launched again, it may well succeed."""
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (State.SUCCEEDED, State.FAILED, State.LOST, State.CANCELLED)


@dataclass(frozen=True)
class Status:
    """A job's state, and in words what it waits for or why it ended."""

    state: State
    detail: str = ""
    restarts: int = 0
    """How often the backend has started it again by itself."""
    gpus: int = 0
    """How many GPUs it takes while it runs."""
    used: Used = field(default=Used(), compare=False)
    """What jobs of its name have taken, this one and all that were launched before it."""


class Run(Protocol):
    """A job that was launched or joined."""

    joined: bool
    """Whether another launch started it."""

    def status(self) -> Status:
        """Look now; never waits. Ask again and again: a joined job becomes one's own when its launcher dies."""

    def logs(self) -> Iterator[str]:
        """Lines written since the last call; never waits."""

    def result(self) -> FolderResult:
        """The finished model folder. Raises TrainingError where the job ended without one, or still runs."""

    def cancel(self) -> None:
        """End the job and wait until it has ended. One that others follow too is only left."""


class Launcher(Protocol):
    """Somewhere jobs run."""

    messages: str
    """How Dagster Pipes' messages come back: through a "file" that the job is told of, or in its "log"."""

    def launch(self, name: str, job: TrainingJob, *, env: Mapping[str, str] | None = None) -> Run:
        """Start the job of that name, or join it where it runs or has finished.

        Args:
            name: the artifact's fingerprint.
            job: what to train; its `output` is the launcher's to choose.
            env: further environment variables of every process, such as those of Dagster Pipes.

        Raises:
            TrainingError: a job of that name runs with another specification; the message says what differs. One that
                has finished is replaced, with a warning. Or jobs of that name have taken all that the recipe lets
                them: then none is started.
        """

    def remove(self, name: str) -> bool:
        """Forget a job whose result was taken. False where it runs."""


def run(
    launcher: Launcher,
    *,
    name: str,
    job: TrainingJob,
    env: Mapping[str, str] | None = None,
    log: Callable[[str], object] | None = None,
    on_status: Callable[[Status], object] | None = None,
    stopped: Callable[[], bool] = lambda: False,
    poll_seconds: float = 0.1,
    pause_seconds: float = 1.0,
) -> FolderResult:
    """Launch or join a job, and wait for its result. Whatever interrupts the wait ends the job, and waits for its end.

    A job that is lost is launched again, up to `Recipe.restarts` times; each time `on_status` is told that it was lost.
    That budget is this call's: another call is another's decision to try again. What may be taken in all
    (`Recipe.timeout_seconds`, `Recipe.gpu_hours`) is the job's, whoever launches it and how often.

    Args:
        launcher: where it runs.
        name, job, env: see `Launcher.launch`.
        log: called with each line that the job writes.
        on_status: called whenever the state or its detail changes.
        stopped: asked at each look; True interrupts the wait, for a caller in a thread that no signal reaches.
        poll_seconds: how often to look.
        pause_seconds: how long to wait before the first restart; then twice as long each time, a minute at most.

    Raises:
        TrainingError: the job failed; the first failing rank's traceback stands on top. Or it was lost too often, has
            run for longer than `Recipe.timeout_seconds`, or has taken more than `Recipe.gpu_hours`.
        KeyboardInterrupt: it was `stopped`.
    """
    handle = launcher.launch(name, job, env=env)
    last: Status | None = None
    said: deque[str] = deque(maxlen=_SAID)
    restarts = 0
    try:
        while True:
            if stopped():
                raise KeyboardInterrupt
            status = handle.status()
            if on_status is not None and status != last:
                on_status(status)
            last = status
            for line in handle.logs():
                said.append(line)
                if log is not None:
                    log(line)
            if status.state is State.LOST and restarts < job.recipe.restarts:
                pause = min(60.0, pause_seconds * 2**restarts)
                restarts += 1
                if on_status is not None:
                    on_status(Status(State.WAITING, f"restart {restarts} of {job.recipe.restarts} in {pause:g} s"))
                _pause(pause, stopped)
                handle = launcher.launch(name, job, env=env)
            elif status.state is State.LOST and restarts:
                raise _lost_too_often(job, restarts, status.detail)
            elif status.state.final:
                return handle.result()
            elif (too_much := status.used.beyond(job, said)) is not None:
                raise too_much
            else:
                time.sleep(poll_seconds)
    except BaseException:
        handle.cancel()
        raise


def _pause(seconds: float, stopped: Callable[[], bool]) -> None:
    """Wait so long, unless stopped: then raise KeyboardInterrupt."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if stopped():
            raise KeyboardInterrupt
        time.sleep(min(0.1, left))


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> dict[str, str]:
    """By field, how two specifications (`TrainingJob.identity`) differ."""
    fields = [key for key in here if there.get(key) != here[key]]
    return {key: f"{there.get(key)!r} there, {here[key]!r} here" for key in fields}


def _lost_too_often(job: TrainingJob, restarts: int, last: str) -> TrainingError:
    again = "was its restart" if restarts == 1 else f"were its {restarts} restarts"
    return TrainingError(
        f"The training job was ended from outside, and so {again}.",
        where=job.pipeline,
        got=f"the last time: {last}",
        fix="find out what ends it (memory, preemption, the machine going down), or raise Recipe.restarts",
        passing=True,
    )
