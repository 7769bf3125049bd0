"""Dagster's event log with its connections kept open: whoever watches a run sees its events as they are logged."""

from __future__ import annotations

import threading
from typing import Any

import dagster as dg

from ml_platform.instance import prepare_instance
from ml_platform.settings import Settings

PATIENCE_SECONDS = 120


def test_a_page_that_watches_a_run_is_told_of_each_event(settings: Settings) -> None:
    with prepare_instance(settings) as running, prepare_instance(settings) as webserver:
        run = running.create_run_for_job(_job, tags={})
        told: list[str] = []
        heard = threading.Semaphore(0)

        def tell(entry: dg.EventLogEntry, cursor: str) -> Any:
            told.append(entry.message)
            heard.release()

        # The connection stays open between events, as it does in a run's process.
        running.report_engine_event("before the watch", run)
        cursor = webserver.get_records_for_run(run.run_id).cursor
        webserver.watch_event_logs(run.run_id, cursor, tell)
        for number in range(3):
            running.report_engine_event(f"event {number}", run)
            assert heard.acquire(timeout=PATIENCE_SECONDS), told
    assert told == ["event 0", "event 1", "event 2"]


@dg.op
def _nothing() -> None:
    """Does nothing."""


@dg.job
def _job() -> None:
    _nothing()
