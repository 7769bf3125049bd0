"""Mixed precision of a compiled module, in two real processes: the same bytes whatever happens to the job."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ml_platform import launch
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.scoring import Scorer
from ml_platform_tests.launch.conftest import pids, processes, wait_until
from ml_platform_tests.launch.test_launcher import same_bytes
from ml_platform_tests.training import made

LOUD = "ml_platform_tests.training.models:loud"
SLOW = "ml_platform_tests.training.models:slow"


@pytest.mark.slow
def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(paths: list[str], tmp_path: Path) -> None:
    """Its batches have two sizes; float16's scale, that of two ranks together, is halved for the first steps."""
    launcher = LocalLauncher(tmp_path / "work")
    job = made.job(
        paths,
        model=SLOW,
        hyperparameters={"seconds": 0.02},
        epochs=8,
        checkpoint_seconds=0.05,
        precision="float16",
        loss=LOUD,
        compile=True,
    )
    killed: list[str] = []
    went_on: list[str] = []

    def disturb(line: str) -> None:
        if line.startswith("epoch 4/8") and not killed:
            killed.append(line)
            os.kill(sorted(pids("-m ml_platform.training.job ", launcher.folder("killed")))[-1], signal.SIGKILL)
        if line.startswith("goes on from a checkpoint"):
            went_on.append(line)

    disturbed = launch.run(launcher, name="killed", job=job, log=disturb, pause_seconds=0.1)
    assert killed
    assert went_on
    # What was compiled before is not found there: compiled anew it does the same.
    env = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    whole = launch.run(launcher, name="whole", job=job, env=env)
    assert [*(tmp_path / "compiled").rglob("*.so")], "it was compiled"
    assert same_bytes(disturbed, whole)
    weights = load_file(whole.folder / "weights.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert len(Scorer.load(whole.folder).columns) == 4, "its weights have the names of the module's own"
    wait_until(lambda: not processes(launcher.folder("whole")), what="every process to end")
