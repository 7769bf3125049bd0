"""Runs whose process is gone are marked, and no other run is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import dagster as dg
import pytest

from ml_platform.automation import dead_runs
from ml_platform.automation.dead_runs import PROCESS_TAG, is_alive, mark_dead, process_tag
from ml_platform.instance import prepare_instance
from ml_platform.settings import Settings

TELL = "from ml_platform.automation.dead_runs import process_tag; print(process_tag(), flush=True); input()"


@pytest.fixture
def other() -> Any:
    """Another process, and its tag."""
    process = subprocess.Popen([sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_a_living_process_is_alive_and_a_killed_one_is_not_even_before_its_parent_collects_it(other: Any) -> None:
    process, tag = other
    assert is_alive(process_tag()) is True
    assert is_alive(tag) is True
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not collected
    assert is_alive(tag) is False
    process.communicate()
    assert is_alive(tag) is False


def changed(**what: Any) -> str:
    return json.dumps({**json.loads(process_tag()), **what})


def test_a_process_id_that_was_given_out_again_is_another_process() -> None:
    assert is_alive(changed(started="1")) is False


def test_a_restart_of_the_machine_or_of_the_container_ends_every_process_of_it() -> None:
    assert is_alive(changed(boot="an earlier one")) is False
    assert is_alive(changed(pids="pid:[1]", names="uts:[1]")) is False


def test_of_another_machine_nothing_is_known() -> None:
    assert is_alive(changed(host="elsewhere")) is None
    assert is_alive(changed(machine="another of that name", boot="another")) is None
    assert is_alive(changed(pids="pid:[1]")) is None
    assert is_alive("not ours") is None
    assert is_alive("[1]") is None


def test_without_proc_the_system_is_asked_in_another_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(dead_runs, "_PROC", tmp_path)
    assert is_alive(process_tag()) is True
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert is_alive(changed(pid=process.pid)) is False


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


def _status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def _set_status(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> None:
    """Through the events that a run's own process logs."""
    events = {
        dg.DagsterRunStatus.STARTED: [dg.DagsterEventType.PIPELINE_START],
        dg.DagsterRunStatus.CANCELING: [dg.DagsterEventType.PIPELINE_START, dg.DagsterEventType.PIPELINE_CANCELING],
        dg.DagsterRunStatus.SUCCESS: [dg.DagsterEventType.PIPELINE_START, dg.DagsterEventType.PIPELINE_SUCCESS],
    }[status]
    for event in events:
        instance.report_dagster_event(dg.DagsterEvent(event.value, "some", message="."), run_id)
