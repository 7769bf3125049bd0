"""One pod of a training job: gets what the job reads out of the store, runs torchrun, and puts the result there.

`python -m ml_platform.launch.kubernetes.pod FOLDER --index I --pods N --ranks R ...`, see `manifests.py`

FOLDER is the job's folder in the store (`launch/staging.py`); the store is the one that the environment names. Index 0
hosts the rendezvous. Its last words are JSON for the launcher: which of its ranks failed first, and why.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from ml_platform.failures import classify
from ml_platform.launch.failure import is_lost
from ml_platform.launch.kubernetes import codes
from ml_platform.launch.staging import Staging
from ml_platform.launch.torchrun import Ended, torchrun
from ml_platform.settings import settings
from ml_platform.stages.opening import store_of
from ml_platform.training.checkpoint import folder
from ml_platform.training.ending import leave_after
from ml_platform.training.result import read_result

MARK = "checkpoints.json"
"""Written by a pod's first rank: the checkpoints that it began with, and whether it is rank 0."""
_MESSAGE = 500
"""Characters of a message that last words keep."""
_MIRROR_SECONDS = 1.0
_PARTS_SECONDS = 10.0
"""For so long a pod that ends waits for other pods' parts of the last checkpoint."""
_LATE_SECONDS = 60.0
"""For so long after a pod's start, who is met may still belong to the attempt before."""


class _AskedToEndError(BaseException):
    """SIGTERM came."""


def main(arguments: list[str]) -> int:
    """Carry out this pod's part. Returns an exit code (`codes`)."""
    parser = argparse.ArgumentParser(description="One pod of a training job.")
    parser.add_argument("folder", help="the job's folder in the store")
    parser.add_argument("--endpoint", required=True, help="host:port of the rendezvous")
    parser.add_argument("--address", required=True, help="this pod's own host name")
    parser.add_argument("--uid", required=True, help="the Job's uid: name of the rendezvous")
    numbers = {"index": "which pod", "pods": "how many pods", "ranks": "ranks a pod", "patience": "seconds for others"}
    for name, what in numbers.items():
        parser.add_argument(f"--{name}", type=int, required=True, help=what)
    parser.add_argument("--last-words", type=Path, required=True, help="file for the termination message")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _ask_to_end)
    try:
        ended, code = _run(options)
    except _AskedToEndError:
        ended, code = Ended(128 + signal.SIGTERM), codes.PREEMPTED
    except Exception as error:
        traceback.print_exc()
        ended, code = Ended(codes.FAILED, [_own(error)]), _code_of(error)
    try:
        options.last_words.write_bytes(last_words(ended.failures))
    except OSError as error:  # the exit code and the log still tell
        sys.stderr.write(f"no last words: {error}\n")
    return code


def _run(options: argparse.Namespace) -> tuple[Ended, int]:
    """Everything that can go wrong. Returns how torchrun ended, and this pod's exit code."""
    work = settings().home / "job"
    work.mkdir(parents=True, exist_ok=True)
    staging = Staging(store_of(settings()), options.folder)
    job = staging.read(work)
    spec = work / "spec.json"
    spec.write_text(job.to_json())
    mirror = Mirror(staging, work)
    mirror.start()
    try:
        ended = _meet(options, ["ml_platform.launch.kubernetes.rank", options.folder, str(spec)], work / "ranks")
    finally:
        signal.signal(signal.SIGTERM, _ask_to_end)  # torchrun has put its own there
        mirror.stop()
    if ended.code == 0 and read_result(Path(job.output)) is not None:
        staging.keep_result(Path(job.output))
    if ended.code == 0:
        return ended, 0
    if ended.code == 128 + signal.SIGTERM:
        return ended, codes.PREEMPTED
    if all(failure["consequence"] and failure["exit_code"] >= 0 for failure in ended.failures):
        return ended, codes.PEER_LOST
    return ended, codes.PREEMPTED if is_lost(ended.failures, ended.code) else codes.FAILED


def _meet(options: argparse.Namespace, program: list[str], logs: Path) -> Ended:
    """Meet the other pods, and train with them.

    How long a pod takes to be scheduled and to get its image is nobody's fault, so they wait for each other. A pod that
    was made again may find the one of before at index 0, which is about to end: then it looks for the next.
    """
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    arguments = [
        *(f"--nnodes={options.pods}", f"--nproc-per-node={options.ranks}", "--max-restarts=0"),
        *("--rdzv-backend=c10d", f"--rdzv-id={options.uid}", f"--rdzv-endpoint={options.endpoint}"),
        f"--rdzv-conf=is_host={int(options.index == 0)},join_timeout={options.patience}",
        f"--local-addr={options.address}",
    ]
    begun = time.monotonic()
    while True:
        if options.index > 0:
            _await(options.endpoint, options.patience)
        try:
            return torchrun(arguments, [*program, "--parent", str(os.getpid())], logs)
        except RendezvousError:
            if time.monotonic() - begun > _LATE_SECONDS:
                raise
            time.sleep(1)


def _await(endpoint: str, seconds: float) -> None:
    """Wait until somebody answers at host:port."""
    host, _, port = endpoint.rpartition(":")
    begun = time.monotonic()
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError:
            if time.monotonic() - begun > seconds:
                raise
            time.sleep(0.5)


def checkpoints(work: Path) -> Path:
    """Where a pod's ranks have the checkpoints of the job whose work folder that is."""
    return folder.place_of(work / "model")


class Mirror:
    """Keeps a running job's checkpoints in the store: of each pod its ranks' parts, of rank 0's the manifests."""

    def __init__(self, staging: Staging, work: Path) -> None:
        self._staging, self._mark, self._folder = staging, work / MARK, checkpoints(work)
        self._kept: set[str] | None = None
        self._first = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="checkpoints", daemon=True)
        self._mark.unlink(missing_ok=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look for the last time: what was safe here when the ranks ended is in the store when this returns."""
        self._ending.set()
        self._thread.join()
        until = time.monotonic() + _PARTS_SECONDS
        while not self._look() and time.monotonic() < until:
            time.sleep(0.2)

    def _loop(self) -> None:
        while not self._ending.wait(_MIRROR_SECONDS):
            self._look()

    def _look(self) -> bool:
        """Whether the store has all that there is."""
        if self._kept is None:
            if not self._mark.exists():
                return True  # training has not begun
            mark = json.loads(self._mark.read_text())
            self._kept, self._first = set(mark["names"]), mark["first"]
        try:
            self._kept = self._staging.keep_checkpoints(self._folder, self._kept, first=self._first)
        except Exception as error:  # training goes on; the next look tries again
            sys.stderr.write(f"checkpoints are not in the store yet: {error}\n")
            return False
        return self._kept.issuperset(folder.listed(self._folder))


def last_words(failures: list[dict[str, Any]]) -> bytes:
    """The first failure and how many others there were, as JSON that fits into a termination message; "" without any.
    What is too long keeps the end of its traceback, which names the cause."""
    if not failures:
        return b""
    first, room = failures[0], codes.TERMINATION_BYTES
    trace = first.get("traceback") or ""
    while True:
        cut = {**first, "message": first["message"][:_MESSAGE], "traceback": trace[-room:]}
        text = json.dumps({"failures": [cut], "more": len(failures) - 1}, ensure_ascii=False).encode()
        if len(text) <= codes.TERMINATION_BYTES:
            return text
        room = room * 3 // 4


def _own(error: Exception) -> dict[str, Any]:
    """A failure of this process itself, told as a rank's."""
    trace = "".join(traceback.format_exception(error))
    lost = _code_of(error) == codes.PEER_LOST
    message = f"{type(error).__name__}: {error}"
    return {
        "rank": None,
        "pid": os.getpid(),
        "exit_code": codes.FAILED,
        "message": message,
        "traceback": trace,
        "time": time.time(),
        "consequence": lost,
    }


def _code_of(error: Exception) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    if isinstance(error, RendezvousError | DistError):
        return codes.PEER_LOST
    return codes.PREEMPTED if classify(error) == "passing" else codes.FAILED


def _ask_to_end(number: int, frame: object) -> NoReturn:
    raise _AskedToEndError


if __name__ == "__main__":
    leave_after(lambda: main(sys.argv[1:]))
