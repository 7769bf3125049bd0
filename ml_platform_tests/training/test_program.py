"""The exported program answers as the model does, where none of this code can be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ml_platform.training import program
from ml_platform.training.model_folder import LoadedModel
from ml_platform.training.models import mlp
from ml_platform.training.preprocessing import Categorical, Label, Numeric, Preprocessing
from ml_platform.training.scoring import Scorer
from ml_platform_tests.registry.trained import rows

ELSEWHERE = """
import json, sys
for name in ("ml_platform", "pandas", "pyarrow", "polars", "mlflow", "safetensors"):
    sys.modules[name] = None  # importing it is an ImportError
sys.path.insert(0, sys.argv[1])
from score import score
columns = json.load(open(sys.argv[2]))
answers = [score({name: values[:count] for name, values in columns.items()}).tolist() for count in (1, 2, 300)]
json.dump(answers, open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def made(request: pytest.FixtureRequest) -> LoadedModel:
    """A model with weights as they begin: it tells rows apart as well as a trained one."""
    label = {
        "binary": Label("late", "integer", classes=(0, 1)),
        "multiclass": Label("grade", "string", classes=("fair", "good", "poor")),
        "regression": Label("price", "", mean=7.0, std=3.0),
    }[request.param]
    preprocessing = Preprocessing(
        task=request.param,
        numeric=(Numeric("size", 0.1, 0.9, indicator=True), Numeric("age", 25.0, 14.0, indicator=False)),
        categorical=(
            Categorical("maker", "string", ("x", "y")),
            Categorical("place", "string", tuple(str(place) for place in range(1, 9))),
        ),
        label=label,
    )
    torch.manual_seed(1)
    module = mlp(preprocessing.inputs(), hidden=[16], embedding=4).eval()
    return LoadedModel({}, preprocessing, module)


def test_it_scores_raw_rows_alone_as_the_scorer_does(made: LoadedModel, tmp_path: Path) -> None:
    program.export(made, tmp_path / "program")
    frame = rows(300, 5).select(made.preprocessing.columns)  # place 0 is unknown, and places are whole numbers here
    scores = Scorer(made).score(frame.to_arrow())
    assert len(np.unique(scores.round(6), axis=0)) > 200
    given = {name: [None if value != value else value for value in frame[name].to_list()] for name in frame.columns}
    (tmp_path / "rows.json").write_text(json.dumps(given))
    paths = [str(tmp_path / "program"), str(tmp_path / "rows.json"), str(tmp_path / "scores.json")]
    subprocess.run([sys.executable, "-I", "-c", ELSEWHERE, *paths], check=True, cwd=tmp_path)
    for answer, count in zip(json.loads((tmp_path / "scores.json").read_text()), (1, 2, 300), strict=True):
        assert np.shape(answer) == scores[:count].shape
        assert np.abs(np.array(answer) - scores[:count]).max() < 1e-6


def test_the_same_model_is_exported_to_the_same_bytes(made: LoadedModel, tmp_path: Path) -> None:
    for name in ("one", "two"):
        program.export(made, tmp_path / name)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert str(Path(program.__file__).parent).encode() not in one[program.MODEL], "no path of this machine"


class Branching(nn.Module):
    """Does another thing where the rows are large: Python decides, so it cannot be exported."""

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        return numeric[:, :1] * (2 if numeric.sum() > 0 else 1)


class Counting(nn.Module):
    """Answers by how many rows there are."""

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        return numeric[:, :1] * (2 if len(numeric) > 5 else 1)


@pytest.mark.parametrize("module", [Branching(), Counting()])
def test_a_model_that_cannot_be_exported_is_refused_and_nothing_is_left(
    made: LoadedModel, tmp_path: Path, module: nn.Module
) -> None:
    loaded = replace(made, module=module)
    with pytest.raises(program.CannotExportError, match="export"):
        program.export(loaded, tmp_path / "program")
    assert not (tmp_path / "program").exists()
    if made.preprocessing.task == "binary":
        assert Scorer(loaded).score(rows(3).to_arrow()).shape == (3,), "it scores all the same"


def test_missing_numbers_count_as_they_do_in_training(made: LoadedModel) -> None:
    numeric = torch.tensor([[torch.nan, 3.0], [torch.inf, 3.0], [made.preprocessing.numeric[0].mean, 3.0]]).double()
    scores = program.Program(made)(numeric, torch.zeros((3, 2), dtype=torch.int64))
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2]), "that it is missing is told beside the mean"
