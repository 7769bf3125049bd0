from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.errors import DeclarationError, TrainingError
from ml_platform.training.config import TrainingJob
from ml_platform_tests.training import made


def test_a_job_survives_being_written_and_read() -> None:
    job = made.job(["/a.parquet", "/b.parquet"], "/out", seed=7, hyperparameters={"hidden": [8, 4], "dropout": 0.1})
    again = TrainingJob.from_json(job.to_json())
    assert again == job
    assert again.to_json() == job.to_json()
    assert again.recipe.hyperparameters == {"hidden": [8, 4], "dropout": 0.1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "ranking"}, "Unknown task"),
        ({"device": "tpu"}, "Unknown device"),
        ({"files": []}, "no files"),
        ({"files": "a.parquet"}, "list of strings"),
        ({"label": "x"}, "two parts"),
        ({"label": ""}, "label"),
        ({"numeric": [], "categorical": []}, "no feature"),
        ({"surprise": 1}, "unknown fields.*\n.*\n.*surprise"),
        ({"schema": 99}, "another schema version"),
        ({"recipe": {"model": made.MLP, "speed": 9}}, "Not a recipe"),
    ],
)
def test_a_bad_specification_is_refused(change: dict[str, object], says: str) -> None:
    record = json.loads(made.job(["/a.parquet"], "/out").to_json())
    with pytest.raises(TrainingError, match=says):
        TrainingJob.from_json(json.dumps({**record, **change}))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_not_a_specification_is_refused(text: str) -> None:
    with pytest.raises(TrainingError, match="specification"):
        TrainingJob.from_json(text)


def test_a_missing_field_is_named() -> None:
    record = json.loads(made.job(["/a.parquet"], "/out").to_json())
    del record["label"]
    with pytest.raises(TrainingError, match="label"):
        TrainingJob.from_json(json.dumps(record))


def test_a_model_that_does_not_exist_is_refused_before_anything_starts() -> None:
    with pytest.raises(DeclarationError, match="nothing of that name"):
        made.job(["/a.parquet"], model="ml_platform.training.models:transformer")


def test_a_hyperparameter_must_be_json() -> None:
    with pytest.raises(DeclarationError, match="JSON"):
        made.job(["/a.parquet"], hyperparameters={"hidden": {1, 2}})


def test_a_stage_can_launch_without_loading_torch() -> None:
    code = "import sys, ml_platform.launch.local, ml_platform.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
