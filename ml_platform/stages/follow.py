"""Follows a run that another process carries out, by its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ml_platform.errors import SetupError
from ml_platform.stages.summary import Progress

if TYPE_CHECKING:
    import dagster as dg

POLL_SECONDS = 0.5


def follow(instance: dg.DagsterInstance, run_id: str, on_progress: Callable[[Progress], None], *, where: str) -> None:
    """Tell how a run gets on until it has ended. An interruption ends the following, not the run.

    Args:
        instance: whose run.
        run_id: which.
        on_progress: told of each stage.
        where: the server's address, for messages.

    Raises:
        SetupError: the run is not one of this instance, or was deleted.
    """
    cursor: str | None = None
    done: dict[str, int] = {}
    while True:
        run = instance.get_run_by_id(run_id)
        if run is None:
            raise SetupError(
                "The run is not in this home's Dagster instance.",
                where=where,
                got=run_id,
                fix="the server and this command must share ML_PLATFORM_DAGSTER_HOME; or run without it: --no-queue",
            )
        if run.status.value == "QUEUED":
            on_progress(Progress(stage="queue", done=0, total=1, message=f"waits for its turn at {where}"))
        found = instance.get_records_for_run(run_id, cursor)
        cursor = found.cursor
        for record in found.records:
            _tell(record.event_log_entry, done, on_progress)
        if run.is_finished and not found.has_more:
            return
        if not found.has_more:
            time.sleep(POLL_SECONDS)


def _tell(entry: dg.EventLogEntry, done: dict[str, int], on_progress: Callable[[Progress], None]) -> None:
    event = entry.dagster_event
    if event is None or event.step_key is None:
        return
    stage = event.step_key
    if event.is_step_start:
        done[stage] = 0
        on_progress(Progress(stage=stage, done=0, total=1))
    elif event.is_step_materialization:
        done[stage] = done.get(stage, 0) + 1
        on_progress(Progress(stage=stage, done=0, total=1, message=f"{done[stage]} published"))
    elif event.is_step_success or event.is_step_failure:
        on_progress(Progress(stage=stage, done=1, total=1, message="failed" if event.is_step_failure else ""))
