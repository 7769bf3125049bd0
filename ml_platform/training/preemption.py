"""Asked to end from outside (SIGTERM): a rank takes a last checkpoint together with the others, and then ends.

    asked = preemption.listen()
    asked.can_wait = True  # from here on there is something to lose
    ...
    if asked.is_set(): ...
    sys.exit(PREEMPTED)

A rank that cannot get that far, since it waits in native code for another that is gone, is ended after `GRACE` seconds.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

PREEMPTED = 75
"""Exit code of a rank that was asked to end and left a checkpoint: EX_TEMPFAIL of sysexits.h."""
GRACE = 20.0
"""Seconds for the last checkpoint. torchrun kills its ranks 30 s after it has asked them to end, as Kubernetes does a
pod."""


class PreemptedError(Exception):
    """Training was broken off because it was asked to; its checkpoint is safe."""


class Asked(threading.Event):
    """Set when this process was asked to end. It ends at once, unless it says that it `can_wait` for a checkpoint."""

    can_wait = False


def listen(grace: float = GRACE) -> Asked:
    """Notice SIGTERM from now on instead of dying of it. To be called in the main thread.

    Args:
        grace: seconds after which a process that can wait ends whatever it does.
    """
    asked = Asked()
    # Python runs a handler between two of its own instructions, which native code that waits never gets to. The byte
    # that is written for a signal at once wakes a thread that does not wait.
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)

    def look() -> None:
        while signal.SIGTERM not in ear.recv(64):
            pass
        asked.set()
        if asked.can_wait:
            time.sleep(grace)
        os._exit(PREEMPTED)

    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    _kept.append(mouth)
    threading.Thread(target=look, name="preemption", daemon=True).start()
    return asked


_kept: list[socket.socket] = []
"""What the interpreter knows by its number alone, and must not be closed."""
