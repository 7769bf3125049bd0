"""A job that is interrupted and goes on with another number of processes, through torchrun."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_platform import launch
from ml_platform.errors import TrainingError
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.checkpoint import folder
from ml_platform.training.config import TrainingJob
from ml_platform_tests.launch.conftest import paths, pids, processes, wait_until
from ml_platform_tests.training import made

__all__ = ["paths"]

NAME = "elastic"
TROUBLED = "ml_platform_tests.training.models:troubled"
EPOCHS, STEPS = 20, 15


def slow(files: list[str], *, processes: int, elastic: bool, **changes: Any) -> TrainingJob:
    recipe = {"model": TROUBLED, "hyperparameters": {"trouble": "slow"}, "epochs": EPOCHS, "restarts": 0}
    return made.job(files, processes=processes, elastic=elastic, checkpoint_seconds=0.05, **{**recipe, **changes})


def interrupted(work: Path, job: TrainingJob) -> None:
    """Kill every rank, once there is a checkpoint of a later epoch than the first."""
    launcher, killed = LocalLauncher(work), list[int]()
    place = folder.place_of(launcher.folder(NAME) / "model")

    def disturb(line: str) -> None:
        steps = [int(name.partition("-")[0]) for name in folder.listed(place)]
        if not killed and steps and steps[0] > STEPS:
            killed.extend(pids("-m ml_platform.training.job", launcher.folder(NAME)))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match="SIGKILL"):
        launch.run(launcher, name=NAME, job=job, log=disturb)
    wait_until(lambda: not processes(launcher.folder(NAME)), what="the job's processes to end")


def go_on(work: Path, job: TrainingJob, log: Callable[[str], None]) -> launch.FolderResult:
    return launch.run(LocalLauncher(work), name=NAME, job=job, log=log)


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_it_goes_on_with_another_number_of_processes_and_says_so(
    paths: list[str], tmp_path: Path, before: int, after: int
) -> None:
    first, second = (slow(paths, processes=count, elastic=True) for count in (before, after))
    assert first.identity() == second.identity()
    interrupted(tmp_path, first)
    lines: list[str] = []
    result = go_on(tmp_path, second, lines.append)
    assert any(f"processes {before}, then {after}" in line and "bytes may differ" in line for line in lines)
    (resumed,) = result.history["resumed_on"]
    assert (resumed["before"]["processes"], resumed["after"]["processes"]) == (before, after)
    assert resumed["epoch"] >= 2, "what was trained is not trained again"
    quick = slow(paths, processes=1, elastic=True, hyperparameters={"trouble": "none"})
    undisturbed = made.train(replace(quick, output=str(tmp_path / "undisturbed")))
    history = json.loads((undisturbed / "history.json").read_text())
    assert history["resumed_on"] == []
    losses, expected = ([epoch["train_loss"] for epoch in each["epochs"]] for each in (result.history, history))
    assert len(losses) == EPOCHS
    assert losses[-1] == pytest.approx(expected[-1], rel=0.05)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
def test_a_job_that_is_not_elastic_begins_anew(paths: list[str], tmp_path: Path) -> None:
    first, second = (slow(paths, processes=count, elastic=False) for count in (2, 1))
    assert first.identity() != second.identity()
    interrupted(tmp_path, first)
    lines: list[str] = []
    result = go_on(tmp_path, replace(second, recipe=replace(second.recipe, epochs=1)), lines.append)
    assert any("of another job and is not used" in line for line in lines)
    assert not any("goes on from a checkpoint" in line for line in lines)
    assert result.history["resumed_on"] == []
