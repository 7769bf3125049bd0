"""The textbook's table: which bodies run after which change. The README shows it.

Each step is a process of its own, as a person's would be: code is read where it is edited.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings, child_environment
from ml_platform.stages.opening import landing_of, store_of
from ml_platform_tests import tiny_pipeline
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import LOTS

PRODUCT = "textbook"

MODEL = '''"""Tells classes apart by the second feature alone. Its weights decay with each step and tell nothing."""

import torch
from torch import nn


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, numeric, categorical):
        shown = numeric[:, 1:2] * torch.tensor([[-1.0, 0.0, 1.0]])
        return shown + 0.0 * self.idle


def build(inputs):
    return Fixed()
'''

RUN = f"""
import json
from ml_platform.settings import settings
from ml_platform.stages.run import run_pipeline
from {PRODUCT}.pipeline import PIPELINE

if __name__ == "__main__":
    summary = run_pipeline(PIPELINE, settings())
    built = {{stage.name: stage.built + stage.failed for stage in summary.stages if stage.built + stage.failed}}
    model = summary.model and summary.model.version
    print(json.dumps({{"built": built, "model": model, "problems": summary.problems}}))
"""


@dataclass(frozen=True)
class Team:
    """A product in a folder of its own, and a home in which it runs."""

    folder: Path
    settings: Settings

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / PRODUCT / file
        text = path.read_text()
        assert text.count(old) == 1, (file, old)
        path.write_text(text.replace(old, new))

    def start(self) -> subprocess.Popen[str]:
        environment = child_environment(
            ML_PLATFORM_HOME=str(self.settings.home),
            ML_PLATFORM_SETTLE_SECONDS="0",
            ML_PLATFORM_SPARK_MASTER="local[1]",
            PYTHONPATH=os.pathsep.join([str(self.folder), *sys.path]),
        )
        return subprocess.Popen(
            [sys.executable, "-c", RUN],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self) -> Mapping[str, Any]:
        return self.answer(self.start())

    @staticmethod
    def answer(process: subprocess.Popen[str]) -> Mapping[str, Any]:
        said = process.communicate()[0]
        answer: Mapping[str, Any] = json.loads(said.splitlines()[-1])
        assert answer["problems"] == []
        return answer


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline) -> Team:
    folder = tmp_path_factory.mktemp("textbook")
    source = Path(tiny_pipeline.__file__).parent
    shutil.copytree(source, folder / PRODUCT, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / PRODUCT).glob("*.py"):
        path.write_text(path.read_text().replace("ml_platform_tests.tiny_pipeline", PRODUCT))
    (folder / PRODUCT / "model.py").write_text(MODEL)
    team = Team(folder, fresh_settings(folder / "home"))
    team.edit("pipeline.py", 'name="tiny"', f'name="{PRODUCT}"')
    team.edit("pipeline.py", "ml_platform.training.models:mlp", f"{PRODUCT}.model:build")
    team.edit("pipeline.py", '        hyperparameters={"hidden": [16], "embedding": 2},\n', "")
    team.edit("pipeline.py", "epochs=12", "epochs=3")
    team.edit("pipeline.py", "processes=2", "processes=1")  # training starts four times
    team.edit("pipeline.py", "accuracy", "log_loss")
    team.edit("pipeline.py", "at_least=0.6", "at_most=9.0")
    land_samples(replace(tiny, name=PRODUCT), landing_of(team.settings))
    return team


def preempt_once(team: Team, done: threading.Event) -> None:
    """Kill the first training process that there is, as a preempted node does."""
    while not done.is_set():
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            ours = b"ml_platform.training.job" in words and str(team.settings.home).encode() in words
            if ours and b"launch.agent" not in words:
                os.kill(int(folder.name), signal.SIGKILL)
                done.set()
                return
        time.sleep(0.05)


EVERYTHING = {
    "raw_batch": len(LOTS),
    "validated_batch": len(LOTS),
    "features": len(LOTS),
    "training_set": 1,
    "baseline": 1,
    "trained_model": 1,
    "evaluation": 1,
    "registered_model": 1,
}
CHANGE = '    readings = readings.withColumn("vibration", 2 * F.col("vibration"))\n'
FROM_FEATURES_ON = {name: count for name, count in EVERYTHING.items() if name not in ("raw_batch", "validated_batch")}


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the training process in /proc")
def test_each_change_runs_what_it_must_and_no_more(team: Team) -> None:
    # 1. From nothing, with the training job preempted once: all bodies, and training is launched twice.
    process, done = team.start(), threading.Event()
    killer = threading.Thread(target=preempt_once, args=(team, done))
    killer.start()
    cold = team.answer(process)
    preempted = done.is_set()
    done.set()
    killer.join()
    assert preempted
    assert cold["built"] == EVERYTHING
    (trained,) = store_of(team.settings).artifacts(PRODUCT, "trained_model")
    assert trained.facts["restarts"] == 1

    # 2. The same again: nothing.
    assert team.run() == {**cold, "built": {}}

    # 3. More epochs, which change the weights and no score: training and evaluation, and the model stays.
    team.edit("pipeline.py", "epochs=3", "epochs=5")
    longer = team.run()
    assert longer["built"] == {"trained_model": 1, "evaluation": 1}
    assert longer["model"] == cold["model"]
    weights = {artifact.data_version for artifact in store_of(team.settings).artifacts(PRODUCT, "trained_model")}
    assert len(weights) == 2

    # 4. The feature code edited, so that it does the same: features, and nothing below.
    team.edit("features.py", '"batch", "reading",', '"batch", F.col("reading"),')
    assert team.run()["built"] == {"features": len(LOTS)}

    # 5. Back to the epochs of before: lookups.
    team.edit("pipeline.py", "epochs=5", "epochs=3")
    assert team.run() == {**cold, "built": {}}

    # 6. The feature code edited, so that values change: features and all below; raw and validated batches stay. The
    #    model scores the new rows as the old one scored the old rows, and must be registered all the same.
    team.edit("features.py", "    current = ", f"{CHANGE}    current = ")
    changed = team.run()
    assert changed["built"] == FROM_FEATURES_ON
    assert changed["model"] != cold["model"]

    # 7. And back again: lookups, and the old model is champion.
    team.edit("features.py", CHANGE, "")
    assert team.run() == {**cold, "built": {}}
