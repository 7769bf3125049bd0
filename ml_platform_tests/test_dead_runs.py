"""Runs whose process is gone are marked, and no other run is."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import dagster as dg

from ml_platform.dead_runs import PROCESS_TAG, mark_dead, process_tag
from ml_platform.instance import prepare_instance
from ml_platform.processes import this_process
from ml_platform.settings import Settings
from ml_platform.stages.outcome import problems_of


def changed(**what: str) -> str:
    return replace(this_process(), **what).to_text()  # type: ignore[arg-type]


def test_only_runs_that_go_on_in_a_process_that_is_gone_are_marked(settings: Settings) -> None:
    gone, here = changed(started="1"), process_tag()
    with prepare_instance(settings) as instance:

        def run(status: dg.DagsterRunStatus, tag: str | None) -> str:
            made = instance.create_run_for_job(
                dg.job(name="some")(lambda: None), tags={PROCESS_TAG: tag} if tag else {}
            )
            _set_status(instance, made.run_id, status)
            return made.run_id

        started, canceling = run(dg.DagsterRunStatus.STARTED, gone), run(dg.DagsterRunStatus.CANCELING, gone)
        kept = {
            run(dg.DagsterRunStatus.STARTED, here): dg.DagsterRunStatus.STARTED,
            run(dg.DagsterRunStatus.STARTED, changed(host="elsewhere")): dg.DagsterRunStatus.STARTED,
            run(dg.DagsterRunStatus.STARTED, "not ours"): dg.DagsterRunStatus.STARTED,
            run(dg.DagsterRunStatus.STARTED, None): dg.DagsterRunStatus.STARTED,
            run(dg.DagsterRunStatus.SUCCESS, gone): dg.DagsterRunStatus.SUCCESS,
        }
        assert set(mark_dead(instance)) == {started, canceling}
        assert _status(instance, started) == dg.DagsterRunStatus.FAILURE
        assert _status(instance, canceling) == dg.DagsterRunStatus.CANCELED
        assert {run_id: _status(instance, run_id) for run_id in kept} == kept
        messages = [entry.message for entry in instance.all_logs(started)]
        assert any("takes up where it stopped" in message for message in messages)
        assert mark_dead(instance) == []
        (problem,) = problems_of(instance, _run(instance, started))
        assert "was killed" in problem
        assert "takes up where it stopped" in problem


def test_a_run_that_nothing_took_up_in_time_is_marked(settings: Settings) -> None:
    """It was killed before its first step, or inherited the process of the run that it was started again from."""
    with prepare_instance(settings) as instance:
        job = dg.job(name="some")(lambda: None)
        first = instance.create_run_for_job(job, tags={PROCESS_TAG: process_tag()})
        waiting = {
            instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING).run_id,
            instance.create_run_for_job(
                job, tags={PROCESS_TAG: process_tag()}, parent_run_id=first.run_id, root_run_id=first.run_id
            ).run_id,
        }
        assert mark_dead(instance) == []
        with sqlite3.connect(settings.dagster_home / "history" / "runs.db") as db:
            db.execute("UPDATE runs SET update_timestamp = datetime(update_timestamp, '-6 minutes')")
        assert set(mark_dead(instance)) == waiting
        assert {_status(instance, run_id) for run_id in waiting} == {dg.DagsterRunStatus.FAILURE}


def _status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    return _run(instance, run_id).status


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def _set_status(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> None:
    """Through the events that a run's own process logs."""
    events = {
        dg.DagsterRunStatus.STARTED: [dg.DagsterEventType.PIPELINE_START],
        dg.DagsterRunStatus.CANCELING: [dg.DagsterEventType.PIPELINE_START, dg.DagsterEventType.PIPELINE_CANCELING],
        dg.DagsterRunStatus.SUCCESS: [dg.DagsterEventType.PIPELINE_START, dg.DagsterEventType.PIPELINE_SUCCESS],
    }[status]
    for event in events:
        instance.report_dagster_event(dg.DagsterEvent(event.value, "some", message="."), run_id)
