"""Training on this machine: torchrun in a session of its own.

Nothing outlives its launcher, however that dies: the agent watches the launching process, each rank watches the agent.
One job of a name at a time: a lock, held by the launcher and inherited by the agent, so that it is free only when both
are gone. Under the work folder:

    .locks/NAME      the lock; never removed
    .locks/NAME.use  held, shared, by everyone who still needs the result
    NAME/            spec.json, status.json, log.txt, failures.json, ranks/, model/; while it trains its checkpoints;
                     used.json, which counts on from one attempt and launch to the next
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ml_platform.errors import PlatformError, TrainingError
from ml_platform.launch import failure
from ml_platform.launch.protocol import State, Status, differences
from ml_platform.launch.used import Meter, Used
from ml_platform.settings import child_environment
from ml_platform.training import watchdog
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import FolderResult, read_result

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class LocalLauncher:
    """Runs jobs as processes of this machine.

    Args:
        work: folder for running and finished jobs.
        grace_seconds: how long a cancelled job may take to end by itself.
        gpus: how many GPUs this machine has for it; None counts them, when a job's cost has a ceiling.
    """

    messages = "file"

    def __init__(self, work: Path, *, grace_seconds: float = 10.0, gpus: int | None = None) -> None:
        self._work, self._grace_seconds, self._gpus = work.absolute(), grace_seconds, gpus
        self._runs: dict[str, list[LocalRun]] = {}

    def launch(self, name: str, job: TrainingJob, *, env: Mapping[str, str] | None = None) -> LocalRun:
        """See `Launcher.launch`."""
        folder = self.folder(name)
        job = replace(
            job,
            files=tuple(str(Path(path).absolute()) for path in job.files),
            output=str(folder / "model"),
        )
        run = LocalRun(folder, self._lock(name), job, dict(env or {}), self._grace_seconds, self._taken(job))
        self._runs.setdefault(name, []).append(run)
        return run

    def remove(self, name: str) -> bool:
        """Say that a job's result is no longer needed here; it is deleted when nobody else needs it.

        Returns:
            Whether it was deleted. False where it runs, or where another launch has yet to take its result.
        """
        folder, lock = self.folder(name), self._lock(name)
        runs = [run for run in self._runs.pop(name, []) if run.in_use]
        if runs:
            runs.pop(0).let_go()
            self._runs[name] = runs
        with contextlib.ExitStack() as held:
            for path in (lock, _use(lock)):
                if (handle := _try_lock(path)) is None:
                    return False
                held.callback(os.close, handle)
            shutil.rmtree(folder, ignore_errors=True)
        return True

    def _taken(self, job: TrainingJob) -> int:
        """How many GPUs a job takes here: one a rank, shared where there are fewer. Counted only for a ceiling."""
        if job.device == "cpu" or job.recipe.gpu_hours is None:
            return 0
        if self._gpus is None:
            import torch  # seconds, for those who ask for it only

            self._gpus = torch.cuda.device_count()
        return min(self._gpus, job.recipe.processes)

    def folder(self, name: str) -> Path:
        """Where a job of that name keeps its files. Raises TrainingError for a name that is not one."""
        if not _NAME.fullmatch(name) or ".." in name:
            raise TrainingError("A job's name is letters, digits, dots, dashes and underscores.", got=repr(name))
        return self._work / name

    def _lock(self, name: str) -> Path:
        path = self._work / ".locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class LocalRun:
    """A job on this machine, launched or joined. See `protocol.Run`."""

    joined = False

    def __init__(
        self, folder: Path, lock: Path, job: TrainingJob, env: dict[str, str], grace_seconds: float, gpus: int
    ) -> None:
        self._folder, self._lock_path, self._job, self._env = folder, lock, job, env
        self._grace_seconds, self._gpus = grace_seconds, gpus
        self._use: int | None = _share(_use(lock))
        self._lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._meter = Meter(Used(), self._keep)
        self._log_place = 0
        self._error: TrainingError | None = None
        self._state = State.WAITING
        self._awaited = ""
        try:
            self._take()
        except BaseException:
            self.let_go()
            raise

    @property
    def in_use(self) -> bool:
        """Whether the result is still needed here."""
        return self._use is not None

    def let_go(self) -> None:
        """Say that the result is not needed here any more."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def status(self) -> Status:
        """See `Run.status`."""
        if self._process is not None:
            code = self._process.poll()
            self._count()
            if code is not None:
                self._ended(code)
        elif not self._state.final:
            self._take()
        if self._state is State.WAITING:
            return Status(State.WAITING, "another launch of the same job runs; its result will be taken")
        return Status(self._state, str(self._error or ""), gpus=self._gpus, used=self._meter.used)

    def logs(self) -> Iterator[str]:
        """See `Run.logs`."""
        try:
            with (self._folder / "log.txt").open("rb") as file:
                file.seek(self._log_place)
                new = file.read()
        except OSError:
            return
        if not self._state.final:  # a line that is still being written stays for the next call
            new = new[: new.rfind(b"\n") + 1]
        self._log_place += len(new)
        yield from new.decode(errors="replace").splitlines()

    def result(self) -> FolderResult:
        """See `Run.result`."""
        if self._error is not None:
            raise self._error
        found = read_result(self._folder / "model") if self._state is State.SUCCEEDED else None
        if found is None:
            raise TrainingError("The job has no result.", where=self._folder, got=f"it is {self._state}")
        return found

    def cancel(self) -> None:
        """See `Run.cancel`."""
        process = self._process
        if process is not None and not self._state.final:
            try:
                _signal_group(process, signal.SIGTERM)  # torchrun ends its ranks, then itself
                process.wait(self._grace_seconds)
            except subprocess.TimeoutExpired:
                pass
            finally:
                _signal_group(process, signal.SIGKILL)
                process.wait()
                self._count()
                time.sleep(2 * watchdog.INTERVAL)  # for ranks that torchrun had no time to end
                self._error = TrainingError("The training job was cancelled.", where=self._job.pipeline, passing=True)
                self._finish(State.CANCELLED)
        elif not self._state.final:
            self._state = State.CANCELLED
        self.let_go()

    def _take(self) -> None:
        """Become the one who runs the job, or take its result; otherwise wait for the one who does."""
        lock = _try_lock(self._lock_path)
        status = _read(self._folder / "status.json")
        if lock is None:
            self.joined = True
            if status.get("state") == State.RUNNING and status["attempt"] != self._awaited:
                self._awaited = status["attempt"]
                self._refuse_another()
            return
        self._lock = lock
        try:
            finished = read_result(self._folder / "model") is not None
            if finished and (differing := self._differing()):
                # It is of no use to who has this specification, and must not stand in the way for good.
                _log.warning(
                    "%s holds a finished job of another specification: training anew.%s",
                    self._folder,
                    _lines(differing),
                )
                self._start()
            elif finished:
                self.joined = True
                self._finish(State.SUCCEEDED)
            elif status.get("state") == State.FAILED and status["attempt"] == self._awaited:
                self._error = TrainingError(status["error"])  # what we waited for has failed: so have we
                self._finish(State.FAILED)
            else:
                self._start()
        except BaseException:
            self._release()
            raise

    def _differing(self) -> dict[str, str]:
        """By field, how the specification of the job in the folder differs from this one."""
        try:
            there = TrainingJob.from_json((self._folder / "spec.json").read_bytes()).identity()
        except (OSError, PlatformError) as error:
            return {"spec.json": f"cannot be read: {error}"}
        return differences(there, self._job.identity())

    def _refuse_another(self) -> None:
        """Refuse to wait for a job of another specification."""
        if differing := self._differing():
            raise TrainingError(
                "A job of this name runs with another specification.",
                where=self._folder,
                got=f"a difference in {', '.join(differing)}{_lines(differing)}",
                fix="the fingerprint must cover whatever differs; until it does, run the stage again after that job",
            )

    def _start(self) -> None:
        assert self._lock is not None
        self.joined = False
        self._meter = Meter(Used.from_record(_read(self._folder / "used.json")), self._keep)
        if (too_much := self._meter.used.beyond(self._job)) is not None:
            raise too_much
        for name in ("failures.json", "status.json"):
            (self._folder / name).unlink(missing_ok=True)
        for name in ("model", "ranks"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for draft in self._folder.glob(".model.[0-9]*"):  # of a rank that was killed while it wrote its result
            shutil.rmtree(draft, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(self._folder / "spec.json", self._job.to_json())
        self._attempt = uuid.uuid4().hex
        command = [
            *(sys.executable, "-m", "ml_platform.launch.agent", str(os.getpid()), str(self._folder / "failures.json")),
            *("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(self._job.recipe.processes), "--"),
            *("ml_platform.training.job", str(self._folder / "spec.json")),
        ]
        with (self._folder / "log.txt").open("wb") as log:
            self._log_place = 0
            self._process = subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        self._state, self._counted = State.RUNNING, time.monotonic()
        self._say(State.RUNNING)

    def _count(self) -> None:
        """Count what the job has taken since the last look."""
        seconds, self._counted = time.monotonic() - self._counted, time.monotonic()
        self._meter.count(self._meter.used.plus(seconds, self._gpus))

    def _keep(self, used: Used) -> None:
        _write(self._folder / "used.json", json.dumps(asdict(used)))

    def _environment(self) -> dict[str, str]:
        """The environment of this process, handed on, and what the job needs on top."""
        ours = {
            "OMP_NUM_THREADS": str(self._job.recipe.threads),
            "PYTHONUNBUFFERED": "1",
            # What this process can import, the job can: a team's model may lie in a folder that only sys.path names.
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }
        if sys.platform == "linux":
            # All ranks are here: no need for the host's name to resolve, nor for a port to be open to others.
            ours |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        return child_environment(**{**ours, **self._env})

    def _ended(self, code: int) -> None:
        if code == 0 and read_result(self._folder / "model") is not None:
            self._finish(State.SUCCEEDED)
            return
        time.sleep(0 if code >= 0 else 2 * watchdog.INTERVAL)  # the agent was killed: its ranks end by themselves
        failures, log = self._folder / "failures.json", self._folder / "log.txt"
        self._error = failure.explain(self._job.pipeline, failures, log, code)
        self._finish(State.LOST if self._error.passing else State.FAILED)

    def _finish(self, state: State) -> None:
        self._state, self._process = state, None
        if not self.joined:
            self._meter.keep()
            self._say(state)
        if state is not State.SUCCEEDED:
            self.let_go()
        self._release()

    def _say(self, state: State) -> None:
        record = {"attempt": self._attempt, "state": state, "pid": os.getpid(), "error": str(self._error or "")}
        _write(self._folder / "status.json", json.dumps(record, indent=1))

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lines(differing: Mapping[str, str]) -> str:
    return "".join(f"\n    {key}: {how}" for key, how in differing.items())


def _try_lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _use(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.use")


def _share(path: Path) -> int:
    """Hold a lock together with others. Only deleting holds it alone, and not for long."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _read(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):  # not begun, or its launcher died between two writes
        return {}
    return record


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
