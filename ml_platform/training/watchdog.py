"""A process that must not outlive the one that started it.

torchrun puts every worker into a session of its own, so killing torchrun's process group reaches none of them: a worker
has to notice by itself that its parent is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
INTERVAL = 0.25
"""Seconds between two looks at the parent."""


def follow(parent: int, *, on_death: Callable[[], None] | None = None, kernel: bool = False) -> None:
    """End this process soon after its parent `parent` has died, however it died.

    Args:
        parent: process id of the parent. Given by the parent, so that no death before this call is missed.
        on_death: called when the parent is gone; by default the process kills itself.
        kernel: on Linux, also ask the kernel, which ends even a process that is stuck in native code. Only for a child
            of its parent's main thread: the kernel counts the death of the starting thread.
    """
    if kernel and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        (on_death or _kill_self)()

    if os.getppid() != parent:
        (on_death or _kill_self)()
    threading.Thread(target=look, name="watchdog", daemon=True).start()


def _kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
