"""torchrun in this process, and in JSON which of its ranks failed first and why."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_platform.training import said


@dataclass(frozen=True)
class Ended:
    """How torchrun ended.

    Args:
        code: 0; 1 where a rank failed; 128 and the signal's number where torchrun itself was asked to end.
        failures: every failed rank, the first cause first: rank, pid, exit_code, message, traceback, time (seconds
            since 1970), and whether it is but a `consequence` of another's end.
    """

    code: int
    failures: list[dict[str, Any]] = field(default_factory=list)


def torchrun(options: Sequence[str], program: Sequence[str], logs: Path) -> Ended:
    """Run torchrun to its end.

    Args:
        options: torchrun's own.
        program: module and arguments of each rank.
        logs: a folder for what the ranks leave.
    """
    gc.disable()  # there is no garbage in what is imported, and to look for it takes a fifth of the time
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    gc.freeze()
    gc.enable()
    try:
        run.run(run.parse_args([*options, "--log-dir", str(logs), "-m", *program]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        return Ended(1, _failures(error, logs))
    except SignalException as error:
        return Ended(128 + int(error.sigval))
    return Ended(0)


def _failures(error: Any, logs: Path) -> list[dict[str, Any]]:
    """Every failed rank, the first cause first."""
    found: dict[int, dict[str, Any]] = {}
    first = 0  # of the ranks here
    for rank, failure in error.failures.items():
        first = rank - failure.local_rank
        found[rank] = {
            "rank": rank,
            "pid": failure.pid,
            "exit_code": failure.exitcode,
            "message": "",
            "traceback": "",
            "time": failure.timestamp,
        }
    # A rank that torchrun ended before it saw it fail has left a file all the same.
    for path in logs.glob("**/attempt_*/*/error.json"):
        told = json.loads(path.read_text())["message"]
        rank = first + int(path.parent.name)
        entry = found.setdefault(rank, {"rank": rank, "pid": None, "exit_code": 1})
        entry["message"] = told["message"]
        entry["traceback"] = told["extraInfo"]["py_callstack"]
        entry["time"] = float(told["extraInfo"]["timestamp"])
    for entry in found.values():
        entry["consequence"] = _is_consequence(entry)
    return sorted(found.values(), key=lambda f: (f["consequence"], f["time"], f["rank"]))


def _is_consequence(failure: dict[str, Any]) -> bool:
    return failure["exit_code"] == -15 or said.is_of_a_lost_peer(failure["message"])
