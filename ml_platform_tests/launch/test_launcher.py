"""What every launcher does alike. Each job takes seconds to start, so tests share what they can."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_platform import launch
from ml_platform.errors import TrainingError
from ml_platform.launch import State
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import CONTENT, FolderResult
from ml_platform.training.scoring import Scorer
from ml_platform_tests.launch.backends import Backend, Local, LocalLauncher, played, real
from ml_platform_tests.launch.conftest import wait_until
from ml_platform_tests.training import made

TROUBLED = "ml_platform_tests.training.models:troubled"
MARK = secrets.token_hex(3)
"""Part of every name: a real cluster may hold jobs of an earlier round."""


@pytest.fixture(scope="module", params=["local", "kubernetes", pytest.param("cluster", marks=pytest.mark.cluster)])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("work with a space" if request.param == "local" else "work")
    with contextlib.ExitStack() as stack:
        if request.param == "local":
            yield Local(LocalLauncher(folder))
        else:
            yield stack.enter_context(played(folder) if request.param == "kubernetes" else real(folder))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(backend: Backend, paths: list[str], lines: list[str]) -> FolderResult:
    lines.clear()
    return launch.run(backend.launcher, name=f"first-{MARK}", job=made.job(paths), log=lines.append)


def same_bytes(a: FolderResult, b: FolderResult) -> bool:
    return all((a.folder / name).read_bytes() == (b.folder / name).read_bytes() for name in CONTENT)


def trouble(paths: list[str], kind: str, **changes: Any) -> TrainingJob:
    return made.job(paths, model=TROUBLED, hyperparameters={"trouble": kind}, **{"epochs": 100, **changes})


def test_a_job_trains_and_its_log_is_followed(trained: FolderResult, lines: list[str]) -> None:
    assert [line for line in lines if line.startswith("epoch")][-1].startswith("epoch 2/2: loss")
    assert trained.history["topology"]["processes"] == 2
    assert [entry["rank"] for entry in trained.history["resources"]] == [0, 1]
    assert len(Scorer.load(trained.folder).columns) == 4


def test_where_a_job_runs_makes_no_difference_to_its_bytes(
    trained: FolderResult, backend: Backend, paths: list[str], tmp_path: Path
) -> None:
    if isinstance(backend, Local):
        pytest.skip("it is what the others are compared with")
    here = launch.run(LocalLauncher(tmp_path), name="here", job=made.job(paths))
    if here.history["topology"] == trained.history["topology"]:
        assert same_bytes(here, trained)
    else:
        assert not isinstance(backend, Local)  # another kind of processor: it says so
        assert here.files["preprocessing.json"] == trained.files["preprocessing.json"]


def test_a_finished_job_is_not_trained_again(
    backend: Backend, paths: list[str], trained: FolderResult, lines: list[str]
) -> None:
    run = backend.launcher.launch(f"first-{MARK}", made.job(paths))
    assert (run.joined, run.status().state) == (True, State.SUCCEEDED)
    assert run.result().history == trained.history  # its timings too
    read = list(run.logs())
    for pod in ("[pod 1] ", ""):  # whose lines come first is not known of two
        again, before = ([line for line in told if line.startswith("[pod 1] ") == bool(pod)] for told in (read, lines))
        assert again == before


def test_a_running_job_of_another_specification_is_refused_and_one_that_others_follow_is_only_left(
    backend: Backend, paths: list[str]
) -> None:
    name, job = f"waits-{MARK}", trouble(paths, "wait")
    first = backend.launcher.launch(name, job)
    with pytest.raises(TrainingError, match="another specification") as caught:
        backend.launcher.launch(name, trouble(paths, "wait", seed=2))
    assert "recipe" in str(caught.value)
    assert "'seed': 2" in str(caught.value)
    second = backend.launcher.launch(name, job)
    assert (first.joined, second.joined) == (False, True)
    told: list[str] = []
    wait_until(
        lambda: first.status().state is State.RUNNING and (told.extend(first.logs()) or "steps an" in "".join(told)),
        what="training to begin",
    )
    second_alive = keep_looking(second)
    first.cancel()
    assert first.status().state is State.CANCELLED
    with pytest.raises(TrainingError, match="cancelled"):
        first.result()
    second_alive.set()
    wait_until(lambda: second.status().state is State.RUNNING, what="the other to follow it")
    assert not backend.launcher.remove(name)
    second.cancel()
    assert not backend.is_alive(name)
    assert backend.launcher.remove(name)


def keep_looking(run: Any) -> threading.Event:
    """Ask for a run's status until the event is set, as whoever waits for it does."""
    enough = threading.Event()

    def look() -> None:
        while not enough.wait(0.1):
            run.status()

    threading.Thread(target=look, daemon=True).start()
    return enough


def test_an_exception_in_a_rank_stands_on_top_of_the_error_and_is_not_tried_again(
    backend: Backend, paths: list[str]
) -> None:
    seen: list[State] = []
    name = f"raises-{MARK}"
    with pytest.raises(TrainingError) as caught:
        launch.run(
            backend.launcher,
            name=name,
            job=trouble(paths, "raise"),
            on_status=lambda status: seen.append(status.state),
        )
    text = str(caught.value)
    assert text.startswith("Training failed in rank 1, which ended with exit code 1 (an exception): ValueError: no")
    assert "models.py" in text.partition("where:")[0]  # the traceback
    assert "exitcode: 1" in text.partition("got:")[2]  # the log's last lines
    assert not caught.value.passing
    assert seen[-1] is State.FAILED
    assert State.LOST not in seen
    assert not backend.is_alive(name)


@pytest.fixture(scope="module")
def undisturbed(backend: Backend, paths: list[str]) -> FolderResult:
    return launch.run(backend.launcher, name=f"undisturbed-{MARK}", job=slow(paths))


def slow(paths: list[str], **changes: Any) -> TrainingJob:
    return trouble(paths, "slow", epochs=20, checkpoint_seconds=0.05, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_whose_worker_is_killed_in_mid_training_ends_with_the_same_bytes(
    backend: Backend, paths: list[str], undisturbed: FolderResult, rank: int
) -> None:
    name = f"disturbed-{rank}-{MARK}"
    killed: list[str] = []
    went_on: list[str] = []

    def disturb(line: str) -> None:
        if "goes on from a checkpoint" in line:
            went_on.append(line)
        if line.startswith("epoch 12/20") and not killed:
            killed.append(line)
            backend.kill_worker(name, rank)

    result = launch.run(backend.launcher, name=name, job=slow(paths), log=disturb, pause_seconds=0.1)
    assert killed
    assert went_on, "what was trained before the last checkpoint is not trained again"
    assert same_bytes(result, undisturbed)


@pytest.mark.slow
def test_a_job_that_runs_for_longer_than_it_may_is_ended(backend: Backend, paths: list[str]) -> None:
    """At half a second a step it would take some minutes."""
    name = f"endless-{MARK}"
    with pytest.raises(TrainingError, match="run for longer than it may") as raised:
        launch.run(backend.launcher, name=name, job=trouble(paths, "wait", timeout_seconds=0.5))
    assert not raised.value.passing, "trying again would end the same way"
    assert "goes on from its last checkpoint" in str(raised.value)
    assert backend.launcher.remove(name), "nothing runs any more"


def test_what_a_job_has_taken_counts_when_it_is_launched_again(backend: Backend, paths: list[str]) -> None:
    """Whoever launches it: what it may take is no part of what it is."""
    name = f"again-{MARK}"
    first = backend.launcher.launch(name, trouble(paths, "wait"))
    wait_until(lambda: first.status().used.seconds > 1, what="the job to run for a while")
    first.cancel()
    taken = first.status().used.seconds
    with pytest.raises(TrainingError, match="run for longer than it may") as raised:
        backend.launcher.launch(name, trouble(paths, "wait", timeout_seconds=taken / 2))
    assert not raised.value.passing
    assert not backend.is_alive(name)
    second = backend.launcher.launch(name, trouble(paths, "wait", timeout_seconds=taken + 1))
    wait_until(lambda: second.status().used.seconds > taken, what="it to count on")
    second.cancel()
    assert backend.launcher.remove(name), "forgotten with the job"
    anew = backend.launcher.launch(name, trouble(paths, "wait", timeout_seconds=taken / 2))
    anew.cancel()
    assert backend.launcher.remove(name)


def test_two_launches_at_once_train_once(backend: Backend, paths: list[str]) -> None:
    results: list[FolderResult] = []
    name = f"both-{MARK}"
    runs = [
        threading.Thread(
            target=lambda: results.append(launch.run(backend.launcher, name=name, job=made.job(paths, epochs=1)))
        )
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(results) == 2
    assert results[0].history == results[1].history  # its timings too: one training
    assert not backend.launcher.remove(name)  # the other may still be reading it
    assert results[1].folder.exists()
    assert backend.launcher.remove(name)
    assert not results[1].folder.exists()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a..b"])
def test_a_name_cannot_leave_its_place(backend: Backend, paths: list[str], name: str) -> None:
    with pytest.raises(TrainingError, match="name"):
        backend.launcher.launch(name, made.job(paths))
