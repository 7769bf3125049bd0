"""torchrun, for `local.py`: ends with the process that started it, and says in JSON which rank failed first and why.

`python -m ml_platform.launch.agent PARENT_PID FAILURES.json TORCHRUN_ARGUMENTS... -- PROGRAM_ARGUMENTS...`
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ml_platform.launch.torchrun import torchrun
from ml_platform.training import watchdog
from ml_platform.training.ending import leave_after


def main(arguments: list[str]) -> int:
    """Run torchrun to its end. Returns its exit code: 0, or 1 where a rank failed."""
    watchdog.follow(int(arguments[0]))
    failures, split = Path(arguments[1]), arguments.index("--")
    program = [*arguments[split + 1 :], "--parent", str(os.getpid())]
    ended = torchrun(arguments[2:split], program, failures.with_name("ranks"))
    if ended.failures:
        failures.write_text(json.dumps(ended.failures, indent=1))
    return ended.code


if __name__ == "__main__":
    leave_after(lambda: main(sys.argv[1:]))
