"""Starts services as process groups of their own, and leaves none of their processes behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ml_platform.errors import SetupError
from ml_platform.settings import child_environment

GRACE_SECONDS = 15.0
"""How long a service may take to end by itself before it is killed."""


@dataclass(kw_only=True)
class Service:
    """A program that serves HTTP. `ready` is the path that answers 200 once it is up."""

    name: str
    url: str
    command: Sequence[str]
    changes: Mapping[str, str]
    ready: str
    folder: Path | None = None
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C reaches us alone, and we stop the whole group."""
        self._process = subprocess.Popen(
            self.command, cwd=self.folder, env=child_environment(**self.changes), start_new_session=True
        )

    def ended(self) -> int | None:
        """Its exit code, or None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """As Ctrl-C would: `dagster dev` then stops its own children in order, which SIGTERM does not make it do."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def stop(self, deadline: float) -> None:
        """Wait until `deadline` (monotonic seconds) for it to end, then kill what is left of its group."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        # The leader may be gone and its children not: the group lives as long as one of them does.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def run_until_stopped(services: Sequence[Service], started: Callable[[], None]) -> None:
    """Start the services, call `started`, and wait: for Ctrl-C, or for one of them to end. Then stop them all.

    Raises:
        SetupError: a service ended by itself.
    """
    try:
        for service in services:
            service.start()
        started()
        while True:
            for service in services:
                if (code := service.ended()) is not None:
                    raise SetupError(
                        f"{service.name} ended by itself.", got=f"exit code {code}", fix="see its log above"
                    )
            time.sleep(0.5)
    except KeyboardInterrupt:
        pass
    finally:
        # A second Ctrl-C must not cut the clean-up short and leave orphans.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for service in services:
            service.ask_to_stop()
        deadline = time.monotonic() + GRACE_SECONDS
        for service in services:
            service.stop(deadline)


def free_port(host: str, port: int, *, option: str) -> int:
    """`port`, or a free one for 0.

    Raises:
        SetupError: something else listens there, or the address is not one of this machine.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As servers do: a port that was closed a moment ago counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise SetupError(
            "Cannot listen there.",
            where=f"{host}:{port}",
            got=error,
            fix=f"take another port with {option}, or {option} 0",
        ) from error
