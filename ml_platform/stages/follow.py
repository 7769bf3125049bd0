"""Follows a run that another process carries out, by its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_platform.errors import SetupError
from ml_platform.server import Server
from ml_platform.stages.summary import Progress

if TYPE_CHECKING:
    import dagster as dg

POLL_SECONDS = 0.5
LOOK_SECONDS = 5.0
"""How often it is asked whether those who carry the run out are still there."""
MISSES = 4
"""So many looks in a row must find no server before it counts as gone: a busy one may be slow to answer."""


class Left(KeyboardInterrupt):
    """Ctrl-C while a run was followed, which goes on. Says where."""


def follow(instance: dg.DagsterInstance, run_id: str, on_progress: Callable[[Progress], None], *, where: str) -> None:
    """Tell how a run gets on until it has ended.

    Args:
        instance: whose run.
        run_id: which.
        on_progress: told of each stage.
        where: the address of the server in whose queue it is.

    Raises:
        SetupError: the run is not one of this instance, or was deleted; or the server is gone, and the run does not
            go on without it.
        Left: an interruption ended the following, not the run.
    """
    try:
        _follow(instance, run_id, on_progress, Server(where))
    except KeyboardInterrupt as error:
        raise Left(f"The run goes on in the server: {where}/runs/{run_id}") from error


def _follow(instance: dg.DagsterInstance, run_id: str, on_progress: Callable[[Progress], None], server: Server) -> None:
    cursor: str | None = None
    done: dict[str, int] = {}
    looked, misses = time.monotonic(), 0
    while True:
        run = instance.get_run_by_id(run_id)
        if run is None:
            raise SetupError(
                "The run is not in this home's Dagster instance.",
                where=server.url,
                got=run_id,
                fix="the server and this command must share ML_PLATFORM_DAGSTER_HOME; or run without it: --no-queue",
            )
        if run.status.value == "QUEUED":
            on_progress(Progress(stage="queue", done=0, total=1, message=f"waits for its turn at {server.url}"))
        found = instance.get_records_for_run(run_id, cursor)
        cursor = found.cursor
        for record in found.records:
            _tell(record.event_log_entry, done, on_progress)
        if run.is_finished and not found.has_more:
            return
        if time.monotonic() - looked > LOOK_SECONDS:
            misses = 0 if _goes_on(instance, run, server) else misses + 1
            looked = time.monotonic()
            if misses >= MISSES:
                raise SetupError(
                    "The Dagster server is gone, and the run with it.",
                    where=server.url,
                    got=f"run {run_id}: {run.status.value.lower()}",
                    fix="start it again (`ml-platform ui`): it takes up what was queued; or run without it: --no-queue",
                    passing=True,
                )
        if not found.has_more:
            time.sleep(POLL_SECONDS)


def _goes_on(instance: dg.DagsterInstance, run: dg.DagsterRun, server: Server) -> bool:
    """Whether the process that carries the run out lives, or the server that is to start one. Marks dead runs."""
    from ml_platform.dead_runs import PROCESS_TAG, is_alive, mark_dead

    mark_dead(instance)
    return is_alive(run.tags.get(PROCESS_TAG, "")) is True or server.answers()


def _tell(entry: dg.EventLogEntry, done: dict[str, int], on_progress: Callable[[Progress], None]) -> None:
    event = entry.dagster_event
    if event is None or event.step_key is None:
        return
    stage = event.step_key
    if event.is_step_start:
        done[stage] = 0
        on_progress(Progress(stage=stage, done=0, total=None))
    elif event.is_step_materialization:
        done[stage] = done.get(stage, 0) + 1
        on_progress(Progress(stage=stage, done=done[stage], total=None, message="published"))
    elif event.is_step_success or event.is_step_failure:
        many = done.get(stage) or 1
        on_progress(Progress(stage=stage, done=many, total=many, message="failed" if event.is_step_failure else ""))
