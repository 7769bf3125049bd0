"""Runs whose process is gone: noticed, and marked as failed, so that nothing waits for them.

A process that is killed cannot say so, and Dagster notices only where its own code server started the process and
still lives. So every run carries a tag that says which process executes it, and anyone on that machine can look.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from ml_platform import processes
from ml_platform.processes import ProcessId, this_process

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

PROCESS_TAG = "ml_platform/process"
"""The run tag that holds `process_tag()` of the process that executes the run."""

DIED = (
    "The process that executed this run is gone: it was killed, ran out of memory, or its machine restarted. What it "
    "had committed is kept; the next run takes up where it stopped."
)


def process_tag() -> str:
    """This process, named so that no other process, now or later, has the same name."""
    return this_process().to_text()


def is_alive(tag: str) -> bool | None:
    """Whether the process is still there that `process_tag` named so; None where that cannot be told from here."""
    try:
        return processes.is_alive(ProcessId.from_text(tag))
    except ValueError:  # not ours
        return None


def mark_dead(instance: DagsterInstance) -> list[str]:
    """Mark the runs whose process is gone as failed (as canceled, if that was asked for). Returns their ids.

    A run says which process executes it when it gets to its first step. One that has not got there for as long as
    dagster.yaml gives it to start was killed before.
    """
    import dagster as dg

    status = dg.DagsterRunStatus
    going_on = [status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING]
    marked = []
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=going_on)):
        listed = record.dagster_run
        tag = None if _inherited(instance, listed) else listed.tags.get(PROCESS_TAG)
        if tag is None:
            waited = dt.datetime.now(dt.UTC) - record.update_timestamp
            starts = listed.status in (status.NOT_STARTED, status.STARTING)
            dead = starts and waited.total_seconds() > instance.run_monitoring_start_timeout_seconds
        else:
            dead = is_alive(tag) is False
        if not dead:
            continue
        # A process writes how its run ended before it goes away: so look again now that it is known to be gone.
        run = instance.get_run_by_id(listed.run_id)
        if run is None or run.status != listed.status or run.tags.get(PROCESS_TAG) != listed.tags.get(PROCESS_TAG):
            continue
        if run.status == status.CANCELING:
            instance.report_run_canceled(run, message="It was to be canceled, and its process is gone.")
        else:
            instance.report_run_failed(run, message=DIED)
        marked.append(run.run_id)
    return marked


def _inherited(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether the tag came with the run that this one was started again from: it has not reached a step yet."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    tag = run.tags.get(PROCESS_TAG)
    return tag is not None and parent is not None and parent.tags.get(PROCESS_TAG) == tag
