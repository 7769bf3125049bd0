"""Which process did something, and whether it still lives: a pid alone may long be another process's."""

from __future__ import annotations

import functools
import os
import re
import socket
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

_LINUX = Path("/proc/self/stat").exists()


@dataclass(frozen=True, kw_only=True)
class ProcessId:
    """One process of all that ever were.

    Args:
        host: the machine's name, for people too.
        boot: which start of the machine, and which of its namespaces of host names and of pids (a container has its
            own): "start/names/pids".
        pid: valid within `boot`.
        started: when the process started, in the operating system's own words; "" where that cannot be told.
    """

    host: str
    boot: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"

    def to_text(self) -> str:
        """One line, for a tag or a file."""
        return " ".join((self.host, self.boot, str(self.pid), self.started)).rstrip()

    @classmethod
    def from_text(cls, text: str) -> ProcessId:
        """Read what `to_text` wrote. Raises ValueError."""
        host, boot, pid, *started = text.split(" ")
        return cls(host=host, boot=boot, pid=int(pid), started=" ".join(started))

    def to_dict(self) -> dict[str, str | int]:
        """As JSON has it; `ProcessId(**record)` reads it."""
        return asdict(self)


def this_process() -> ProcessId:
    """The process that asks."""
    return _identify(os.getpid())


def is_alive(process: ProcessId) -> bool | None:
    """Whether a process still runs; None where that cannot be told from here: on another machine, in a container.

    The same machine or container started anew has other processes: then it is dead. A zombie is dead too.
    """
    here = this_process()
    if process.host != here.host:
        return None
    (boot, _, spaces), (boot_here, _, spaces_here) = process.boot.partition("/"), here.boot.partition("/")
    if boot != boot_here:
        return False
    if spaces != spaces_here:
        # A container that restarts keeps its host name, and gets all its namespaces anew. What has only other pids
        # than we shares the machine with us, and may well live.
        return False if spaces.partition("/")[0] != spaces_here.partition("/")[0] else None
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # there is such a process, of another user
        pass
    state, started = _state(process.pid)
    return state != "Z" and (started == process.started or "" in (started, process.started))


@functools.lru_cache(maxsize=1)  # by pid: a forked process asks anew
def _identify(pid: int) -> ProcessId:
    host = re.sub(r"\s", "_", socket.gethostname())
    return ProcessId(host=host, boot=_boot(), pid=pid, started=_state(pid)[1])


def _boot() -> str:
    if _LINUX:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        names, pids = (os.stat(f"/proc/self/ns/{space}").st_ino for space in ("uts", "pid"))
        return f"{boot}/{names}/{pids}"
    return re.sub(r"\D+", "-", _say("sysctl", "-n", "kern.boottime")).strip("-")


def _state(pid: int) -> tuple[str, str]:
    """The state of a process ("Z" for a zombie) and when it started; empty where that cannot be read."""
    if _LINUX:
        try:
            # The name in brackets may hold anything. Behind it: state first, start in ticks since boot twentieth
            # (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            return fields[0].decode(), fields[19].decode()
        except OSError:
            return "", ""
    state, _, started = _say("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
    return state[:1], re.sub(r"[^A-Za-z0-9]+", ".", started.strip())


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
