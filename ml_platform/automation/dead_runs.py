"""Runs whose process is gone: noticed, and marked as failed, so that nothing waits for them.

A process that is killed cannot say so, and Dagster notices only where its own code server started the process and
still lives. So every run carries a tag that says which process executes it, and anyone on that machine can look.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagster import DagsterInstance

PROCESS_TAG = "ml_platform/process"
"""The run tag that holds `process_tag()` of the process that executes the run."""

DIED = (
    "The process that executed this run is gone: it was killed, ran out of memory, or its machine restarted. What it "
    "had committed is kept; the next run takes up where it stopped."
)

_PROC = Path("/proc")


def process_tag() -> str:
    """This process, named so that no other process, now or later, has the same name. JSON."""
    return json.dumps({**_machine(), "pid": os.getpid(), "started": _started(os.getpid())}, sort_keys=True)


def is_alive(tag: str) -> bool | None:
    """Whether a process is still there.

    Args:
        tag: what `process_tag` returned in that process.

    Returns:
        None where that cannot be known from here: it runs, or ran, on another machine, or in another container.
    """
    try:
        process = dict(json.loads(tag))
        pid = int(process["pid"])
    except (ValueError, TypeError, KeyError):
        return None
    here = _machine()
    if any(process.get(name) != here[name] for name in ("host", "machine")):
        return None
    if process.get("boot") != here["boot"]:
        return False  # the machine has restarted since
    if process.get("pids") != here["pids"]:
        # A container that restarts keeps its host name and gets new namespaces, all of them; a shell that merely sees
        # other process ids than ours shares the rest with us, and its processes may well live.
        return False if process.get("names") != here["names"] else None
    return _started(pid) == process.get("started") is not None


def mark_dead(instance: DagsterInstance) -> list[str]:
    """Mark the runs whose process is gone as failed (as canceled, if that was asked for). Returns their ids."""
    import dagster as dg

    going_on = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    marked = []
    for listed in instance.get_runs(filters=dg.RunsFilter(statuses=going_on)):
        if PROCESS_TAG not in listed.tags or is_alive(listed.tags[PROCESS_TAG]) is not False:
            continue
        # A process writes how its run ended before it goes away: so look again now that it is known to be gone.
        run = instance.get_run_by_id(listed.run_id)
        if run is None or run.is_finished or run.tags.get(PROCESS_TAG) != listed.tags[PROCESS_TAG]:
            continue
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message="It was to be canceled, and its process is gone.")
        else:
            instance.report_run_failed(run, message=DIED)
        marked.append(run.run_id)
    return marked


def _machine() -> dict[str, Any]:
    """This machine, since it was last started, and the namespaces that a container has to itself."""
    return {
        "host": socket.gethostname(),
        "machine": _text(Path("/etc/machine-id")),
        "boot": _text(_PROC / "sys/kernel/random/boot_id"),
        "pids": _link(_PROC / "self/ns/pid"),
        "names": _link(_PROC / "self/ns/uts"),
    }


def _started(pid: int) -> str | None:
    """When the process of that id started, in whatever the system counts; None where there is none. A process id is
    given out again, but not within the same instant. One that is dead and not yet collected by its parent is gone."""
    if not (_PROC / "self/stat").exists():
        return _started_without_proc(pid)
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # "pid (name) state parent ...": the name may hold anything, brackets too. Fields 3 and 22, from proc(5).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _started_without_proc(pid: int) -> str | None:
    shown = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    state, _, started = shown.partition(" ")
    return None if not started or state.startswith("Z") else " ".join(started.split())


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
