"""When a run is due, from how the last one ended and from what is to be done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_platform.automation.declaration import Reconcile
from ml_platform.automation.retries import Attempts, Ending, LastRun, consider

DECLARED = Reconcile(every_seconds=300, retries=3, retry_seconds=60, longest_wait_seconds=200)


def ended(run_id: str, ending: Ending, *, tried: bool = True) -> LastRun:
    return LastRun(run_id=run_id, ending=ending, tried=tried)


def test_what_is_newly_stale_must_be_so_at_the_next_look_too() -> None:
    first = consider(Attempts(), "a", None, 1000, DECLARED)
    assert not first.given_up
    assert 1000 < first.not_before <= 1300
    assert consider(first, "a", None, 1300, DECLARED) == first
    assert consider(first, "b", None, 1300, DECLARED).not_before > 1300, "a deployment that is half done"


def test_passing_failures_are_tried_again_with_growing_pauses_up_to_a_limit() -> None:
    attempts, pauses = Attempts(), []
    for number in range(4):
        now = 1000.0 * number
        attempts = consider(attempts, "a", ended(f"run {number}", "passing"), now, DECLARED)
        assert attempts.failed == number + 1
        assert consider(attempts, "a", ended(f"run {number}", "passing"), now + 500, DECLARED) == attempts, "once a run"
        pauses.append(attempts.not_before - now)
        assert bool(attempts.given_up) == (number == 3)
    for pause, expected in zip(pauses, (60, 120, 200, 200), strict=True):
        assert 0.75 * expected <= pause <= 1.25 * expected
    assert consider(attempts, "b", ended("run 3", "passing"), 9000, DECLARED).given_up == ""


def test_pauses_differ_so_that_many_pipelines_do_not_come_back_at_once() -> None:
    last = ended("run", "passing")
    assert len({consider(Attempts(), "a", last, 0, DECLARED).not_before for _ in range(10)}) == 10


def test_a_failure_that_came_further_counts_anew() -> None:
    attempts = consider(Attempts(), "a", ended("run 1", "passing"), 0, DECLARED)
    attempts = consider(attempts, "what was left", ended("run 2", "passing"), 0, DECLARED)
    assert attempts.failed == 1


@pytest.mark.parametrize("ending", ["permanent", "stopped", "experiment", "success"])
def test_what_a_retry_would_not_change_waits_until_something_else_is_to_be_done(ending: Ending) -> None:
    attempts = consider(Attempts(), "a", ended("run", ending), 0, DECLARED)
    assert attempts.given_up
    assert consider(attempts, "a", ended("run", ending), 1e9, DECLARED) == attempts
    assert consider(attempts, "b", ended("run", ending), 1e9, DECLARED).given_up == ""


def test_a_run_that_was_not_to_do_it_says_nothing() -> None:
    first = consider(Attempts(), "a", None, 0, DECLARED)
    for ending in ("success", "permanent", "passing", "stopped"):
        after = consider(first, "a", ended("another", ending, tried=False), 300, DECLARED)
        assert after == replace(first, counted="another")


def test_it_is_kept_as_text() -> None:
    attempts = consider(Attempts(), "a", ended("run", "passing"), 0, DECLARED)
    assert Attempts.from_json(attempts.to_json()) == attempts
    assert Attempts.from_json(None) == Attempts()
