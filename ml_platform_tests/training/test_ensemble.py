"""An ensemble answers with the mean of its members, from a model folder like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ml_platform.errors import TrainingError
from ml_platform.training import ensemble, program
from ml_platform.training.result import CONTENT, read_result
from ml_platform.training.scoring import Scorer
from ml_platform_tests.training import made

LABELS = {"binary": "late", "multiclass": "kind", "regression": "amount"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return made.files(tmp_path_factory.mktemp("rows"), batches=2, rows=300)


def members(folder: Path, rows: list[str], task: str = "binary") -> dict[str, Path]:
    """Two models of one training set; they differ in width and seed."""
    what = {"task": task, "label": LABELS[task], "epochs": 1}
    wide = {"hyperparameters": {"hidden": [24, 8]}, "seed": 3}
    return {
        "wide": made.train(made.job(rows, folder / "wide", **what, **wide)),
        "narrow": made.train(made.job(rows, folder / "narrow", **what)),
    }


@pytest.mark.parametrize("task", LABELS)
def test_its_answer_is_the_mean_of_its_members(tmp_path: Path, rows: list[str], task: str) -> None:
    folders = members(tmp_path, rows, task)
    folder = ensemble.write(folders, tmp_path / "average")
    table = pq.read_table(rows[0])
    expected = np.mean([Scorer.load(each).score(table) for each in folders.values()], axis=0)
    scorer = Scorer.load(folder)
    np.testing.assert_allclose(scorer.score(table), expected, rtol=1e-6, atol=1e-9)
    assert scorer.task == task
    assert scorer.columns == Scorer.load(folders["wide"]).columns
    found = read_result(folder)
    assert found is not None
    assert len(found.history["resources"]) == 2
    assert [rank["candidate"] for rank in found.history["resources"]] == ["wide", "narrow"]
    program.export(ensemble.load(folder), tmp_path / "program")  # which raises unless it answers as the model does
    assert (tmp_path / "program" / program.MODEL).is_file()


def test_the_same_members_give_the_same_bytes_and_others_do_not(tmp_path: Path, rows: list[str]) -> None:
    folders = members(tmp_path, rows)
    first, again = (ensemble.write(folders, tmp_path / name) for name in ("first", "again"))
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in CONTENT)
    turned = ensemble.write(dict(reversed(folders.items())), tmp_path / "turned")
    assert (first / "model.json").read_bytes() != (turned / "model.json").read_bytes()
    recipes = json.loads((first / "model.json").read_text())["average"]
    assert [member["name"] for member in recipes] == ["wide", "narrow"]


def test_members_that_learned_from_other_rows_are_refused(tmp_path: Path, rows: list[str]) -> None:
    folders = members(tmp_path, rows)
    folders["narrow"] = made.train(made.job(rows[:1], tmp_path / "other", epochs=1))
    with pytest.raises(TrainingError, match="not trained on the same rows"):
        ensemble.write(folders, tmp_path / "average")


class Says(torch.nn.Module):
    """Always the same logits, whatever it is asked."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([logits]))

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(numeric), -1)


def test_members_that_are_quite_sure_keep_their_logits() -> None:
    """A probability of exp(-200) is 0 to a float32, and its logit would be infinite."""
    one, two = torch.zeros(1, 1), torch.zeros(1, 0)
    binary = ensemble.Average([Says(-200.0), Says(-200.0)], "binary")(one, two)
    assert binary.item() == pytest.approx(-200.0)
    classes = ensemble.Average([Says(300.0, 0.0), Says(300.0, 0.0)], "multiclass")(one, two)
    assert classes[0].tolist() == pytest.approx([0.0, -300.0])
    half = ensemble.Average([Says(1000.0), Says(-1000.0)], "binary")(one, two)
    assert torch.sigmoid(half).item() == pytest.approx(0.5)
