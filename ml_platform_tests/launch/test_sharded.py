"""A model divided among two processes, through torchrun."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from ml_platform import launch
from ml_platform.errors import DeclarationError
from ml_platform.launch import State
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.checkpoint import folder
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import FolderResult
from ml_platform_tests.launch.conftest import paths, pids
from ml_platform_tests.training import made

__all__ = ["paths"]


def job(files: list[str], **changes: Any) -> TrainingJob:
    recipe = {"model": "ml_platform_tests.training.normed:normed", "hyperparameters": {}, "epochs": 4, "shard": True}
    return made.job(files, processes=2, **{**recipe, **changes})


@pytest.fixture(scope="module")
def undisturbed(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> FolderResult:
    return launch.run(LocalLauncher(tmp_path_factory.mktemp("undisturbed")), name="sharded", job=job(paths))


@pytest.fixture(scope="module")
def together(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> FolderResult:
    """Not divided."""
    work = tmp_path_factory.mktemp("together")
    return launch.run(LocalLauncher(work), name="whole", job=job(paths, shard=False))


def test_each_process_holds_its_share_and_learns_what_it_would_learn_whole(
    undisturbed: FolderResult, together: FolderResult
) -> None:
    all_of_it = together.history["resources"][0]["parameters"]
    shares = [rank["parameters"] for rank in undisturbed.history["resources"]]
    assert sum(shares) == all_of_it
    assert max(shares) < 0.55 * all_of_it
    weights, expected = (load_file(each.folder / "weights.safetensors") for each in (undisturbed, together))
    assert weights.keys() == expected.keys()
    for name, value in weights.items():
        assert value.float().numpy() == pytest.approx(expected[name].float().numpy(), abs=1e-3, rel=1e-3), name


@pytest.mark.parametrize(
    ("expected", "number"),
    [
        ("undisturbed", signal.SIGKILL),
        pytest.param("undisturbed", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("together", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_is_disturbed_ends_with_the_same_bytes(
    paths: list[str], request: pytest.FixtureRequest, tmp_path: Path, expected: str, number: signal.Signals
) -> None:
    """How long a step takes is a hyperparameter here, and so in `model.json`: the weights are compared."""
    launcher, disturbed, lines, seen = LocalLauncher(tmp_path), list[int](), list[str](), list[State]()
    place = folder.place_of(launcher.folder("sharded") / "model")
    slow = job(paths, hyperparameters={"seconds": 0.15}, checkpoint_seconds=0.05, shard=expected == "undisturbed")

    def disturb(line: str) -> None:
        lines.append(line)
        if not disturbed and any(int(name.partition("-")[0]) > 5 for name in folder.listed(place)):
            assert all(len(list((place / name).glob("*.distcp"))) == 2 for name in folder.listed(place))
            disturbed.extend(pids("-m ml_platform.training.job", launcher.folder("sharded"))[-1:])
            os.kill(disturbed[0], number)

    def look(status: launch.Status) -> None:
        seen.append(status.state)

    result = launch.run(launcher, name="sharded", job=slow, log=disturb, on_status=look, pause_seconds=0.1)
    assert State.LOST in seen
    assert any("goes on from a checkpoint" in line for line in lines)
    weights = [each.folder / "weights.safetensors" for each in (result, request.getfixturevalue(expected))]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_mixed_precision_gives_the_same_bytes_each_time(
    paths: list[str], undisturbed: FolderResult, tmp_path: Path
) -> None:
    short = job(paths, precision="bfloat16")
    found = [
        (launch.run(LocalLauncher(tmp_path), name=name, job=short).folder / "weights.safetensors").read_bytes()
        for name in ("once", "twice")
    ]
    assert found[0] == found[1]
    assert found[0] != (undisturbed.folder / "weights.safetensors").read_bytes()


def test_what_does_not_go_together_is_refused(paths: list[str]) -> None:
    for changes in ({"compile": True}, {"precision": "float16"}):
        with pytest.raises(DeclarationError, match="divided among the processes"):
            job(paths, **changes)
    assert job(paths).identity() != job(paths, shard=False).identity()
