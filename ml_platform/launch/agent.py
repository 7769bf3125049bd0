"""torchrun, for `local.py`: ends with the process that started it, and says in JSON which rank failed first and why.

`python -m ml_platform.launch.agent PARENT_PID FAILURES.json TORCHRUN_ARGUMENTS... -- PROGRAM_ARGUMENTS...`
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from ml_platform.training import watchdog

# What a rank says when another rank has gone: never the cause.
_PEER_IS_GONE = re.compile(
    r"Connection (closed|reset) by peer|gloo/transport|DistNetworkError|ncclRemoteError|ncclSystemError|Broken pipe"
)


def main(arguments: list[str]) -> int:
    """Run torchrun to its end. Returns its exit code: 0, or 1 where a rank failed."""
    watchdog.follow(int(arguments[0]))
    failures, split = Path(arguments[1]), arguments.index("--")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logs = failures.with_name("ranks")
    program = ["-m", *arguments[split + 1 :], "--parent", str(os.getpid())]
    try:
        options = run.parse_args([*arguments[2:split], "--log-dir", str(logs), *program])  # type: ignore[no-untyped-call]
        run.run(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failures.write_text(json.dumps(_failures(error, logs), indent=1))
        return 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _failures(error: Any, logs: Path) -> list[dict[str, Any]]:
    """Every failed rank, the first cause first."""
    found: dict[int, dict[str, Any]] = {}
    for rank, failure in error.failures.items():
        found[rank] = {
            "rank": rank,
            "pid": failure.pid,
            "exit_code": failure.exitcode,
            "message": failure.message if isinstance(failure.message, str) else "",
            "traceback": "",
            "time": failure.timestamp,
        }
    # A rank that torchrun ended before it saw it fail has left a file all the same.
    for path in logs.glob("**/attempt_*/*/error.json"):
        said = json.loads(path.read_text())["message"]
        rank = int(path.parent.name)
        entry = found.setdefault(rank, {"rank": rank, "pid": None, "exit_code": 1})
        entry["message"] = said["message"]
        entry["traceback"] = said["extraInfo"]["py_callstack"]
        entry["time"] = float(said["extraInfo"]["timestamp"])
    for entry in found.values():
        entry["consequence"] = _is_consequence(entry)
    return sorted(found.values(), key=lambda f: (f["consequence"], f["time"], f["rank"]))


def _is_consequence(failure: dict[str, Any]) -> bool:
    return failure["exit_code"] == -15 or _PEER_IS_GONE.search(failure["message"]) is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
