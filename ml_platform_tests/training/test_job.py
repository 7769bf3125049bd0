"""Training and scoring in this process, as the only rank. What needs several is in `ml_platform_tests/launch`."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ml_platform.errors import FeatureError, TrainingError
from ml_platform.training import job as training
from ml_platform.training.loop import learning_rate
from ml_platform.training.result import CONTENT, FILES, read_result
from ml_platform.training.scoring import Scorer
from ml_platform_tests.training import made
from ml_platform_tests.training.made import train

TROUBLED = "ml_platform_tests.training.models:troubled"


@pytest.fixture(scope="module")
def frame(paths: list[str]) -> pd.DataFrame:
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pandas()


@pytest.fixture(scope="module")
def folders(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("models")
    labels = {"binary": "late", "multiclass": "kind", "regression": "amount"}
    return {
        task: train(made.job(paths, out / task, task=task, label=label, processes=1, epochs=8))
        for task, label in labels.items()
    }


def test_a_binary_model_gives_the_probability_of_the_positive_class(
    folders: dict[str, Path], frame: pd.DataFrame
) -> None:
    scorer = Scorer.load(folders["binary"])
    scores = scorer.score(frame)
    assert scorer.classes == (False, True)
    assert scores.shape == (len(frame),)
    assert ((scores >= 0) & (scores <= 1)).all()
    known = frame.late.notna()
    assert ((scores > 0.5)[known] == frame.late[known]).mean() > 0.8


def test_a_multiclass_model_gives_a_probability_for_each_class(folders: dict[str, Path], frame: pd.DataFrame) -> None:
    scorer = Scorer.load(folders["multiclass"])
    scores = scorer.score(frame)
    assert scorer.classes == ("low", "mid", "top")
    assert scores.shape == (len(frame), 3)
    assert scores.sum(1) == pytest.approx(1)
    known = frame.kind.notna()
    assert (np.array(scorer.classes)[scores.argmax(1)] == frame.kind)[known].mean() > 0.7


def test_a_regression_predicts_in_the_label_s_unit(folders: dict[str, Path], frame: pd.DataFrame) -> None:
    scorer = Scorer.load(folders["regression"])
    scores = scorer.score(frame)
    assert scorer.classes == ()
    known = frame.amount.notna()
    assert np.abs(scores - frame.amount)[known].mean() < 0.5 * frame.amount.std()


def test_rows_score_the_same_in_any_column_order_kind_of_frame_and_number_at_once(
    folders: dict[str, Path], frame: pd.DataFrame
) -> None:
    scorer = Scorer.load(folders["binary"])
    expected = scorer.score(frame)
    table = pa.Table.from_pandas(frame[[*reversed(scorer.columns), "key"]], preserve_index=False)
    assert scorer.score(table).tolist() == expected.tolist()
    shuffled = frame.sample(frac=1, random_state=0)
    assert scorer.score(shuffled) == pytest.approx(expected[shuffled.index])
    assert scorer.score(frame.astype({"place": "category"})).tolist() == expected.tolist()
    one_by_one = [scorer.score(frame.iloc[[i]])[0] for i in range(5)]
    assert one_by_one == pytest.approx(expected[:5], abs=1e-6)
    assert scorer.score(frame.iloc[:0]).shape == (0,)


def test_what_was_never_seen_still_scores(folders: dict[str, Path], frame: pd.DataFrame) -> None:
    row = {"x": 10.0, "z": 0.0, "place": "JFK", "month": 5}
    rows = pd.DataFrame(
        [row, {**row, "place": "LHR"}, {**row, "place": None}, {**row, "month": 99}, {**row, "x": None}]
    )
    for folder in folders.values():
        scores = Scorer.load(folder).score(rows)
        assert np.isfinite(scores).all()
        assert scores[1] == pytest.approx(scores[2])  # unknown is missing
        assert scores[0] != pytest.approx(scores[1])


def test_bad_rows_name_the_column(folders: dict[str, Path], frame: pd.DataFrame) -> None:
    scorer = Scorer.load(folders["binary"])
    with pytest.raises(FeatureError, match="place"):
        scorer.score(frame.drop(columns="place"))
    with pytest.raises(FeatureError, match="column 'x'"):
        scorer.score(frame.assign(x="fast"))
    with pytest.raises(FeatureError, match="column 'x'"):
        scorer.score(frame.assign(x=[1.0, "fast"] * (len(frame) // 2)))
    with pytest.raises(FeatureError, match="column 'month'"):
        scorer.score(frame.assign(month=1.5))


def test_rows_without_a_label_are_not_learned_from(paths: list[str], tmp_path: Path) -> None:
    stripped = []
    for path in paths:
        table = pq.read_table(path)
        stripped.append(str(tmp_path / Path(path).name))
        pq.write_table(table.filter(table["late"].is_valid()), stripped[-1])
    changes: dict[str, Any] = {"processes": 1, "epochs": 1}
    with_nulls = train(made.job(paths, tmp_path / "a", **changes))
    without = train(made.job(stripped, tmp_path / "b", **changes))
    for name in CONTENT:
        assert (with_nulls / name).read_bytes() == (without / name).read_bytes()


def test_the_folder_holds_what_rebuilds_the_model_and_no_pickle(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        assert {path.name for path in folder.iterdir()} == {*FILES, "result.json"}
        for path in folder.iterdir():
            data = path.read_bytes()
            assert not data.startswith((b"\x80", b"PK"))  # pickle; torch.save's zip
    model = json.loads((folders["multiclass"] / "model.json").read_text())
    assert (model["task"], model["label"], model["classes"]) == ("multiclass", "kind", ["low", "mid", "top"])
    assert (model["numeric"], model["categorical"]) == (["x", "z"], ["place", "month"])
    assert model["recipe"]["model"] == made.MLP
    history = json.loads((folders["binary"] / "history.json").read_text())
    assert [e["epoch"] for e in history["epochs"]] == list(range(1, 9))
    assert history["epochs"][-1]["train_loss"] < history["epochs"][0]["train_loss"]
    assert history["resources"][0]["peak_memory_mib"] > 0


def test_a_damaged_folder_is_no_result_and_does_not_load(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders["binary"], copy)
    assert read_result(copy) is not None
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert read_result(copy) is None
    with pytest.raises(TrainingError, match="damaged"):
        Scorer.load(copy)
    (copy / "model.json").unlink()
    with pytest.raises(TrainingError, match="Not a model folder"):
        Scorer.load(copy)


def test_a_model_of_a_later_version_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders["binary"], copy)
    record = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**record, "schema": 99}))
    with pytest.raises(TrainingError, match="another version"):
        Scorer.load(copy)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": TROUBLED, "hyperparameters": {"trouble": "nan"}}, r"not finite.\n.*epoch 1, step 3 of"),
        ({"model": TROUBLED, "hyperparameters": {"trouble": "shape"}}, "wrong shape"),
        ({"model": "ml_platform_tests.training.models:nothing", "hyperparameters": {}}, r"torch\.nn\.Module"),
        ({"optimizer_options": {"speed": 1}}, "refuses its options"),
        ({"learning_rate": 1e30, "optimizer": "SGD"}, "not finite"),
    ],
)
def test_what_cannot_train_fails_at_once_and_leaves_no_model(
    paths: list[str], tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(TrainingError, match=says):
        train(made.job(paths, tmp_path / "model", processes=1, **changes))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_mixed_precision_a_model_learns_as_well_and_its_weights_are_float32(
    paths: list[str], folders: dict[str, Path], frame: pd.DataFrame, tmp_path: Path, precision: str
) -> None:
    folder = train(made.job(paths, tmp_path / "model", processes=1, epochs=8, precision=precision))
    assert {value.dtype for value in load_file(folder / "weights.safetensors").values()} == {torch.float32}
    assert Scorer.load(folder).score(frame) == pytest.approx(Scorer.load(folders["binary"]).score(frame), abs=0.05)
    losses = [
        json.loads((f / "history.json").read_text())["epochs"][-1]["train_loss"] for f in (folder, folders["binary"])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert json.loads((folder / "model.json").read_text())["recipe"]["precision"] == precision


def test_compiling_without_a_compiler_says_so(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(TrainingError, match=r"(?s)no C\+\+ compiler.*no-such-compiler.*install"):
        train(made.job(paths, tmp_path / "model", processes=1, compile=True))


def test_another_number_of_processes_than_the_recipe_s_is_refused(paths: list[str]) -> None:
    with pytest.raises(TrainingError, match="another number of processes"), training.joined(made.job(paths)):
        pass


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    recipe = made.job(["a.parquet"], learning_rate=1.0, warmup=0.1).recipe
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[0] < rates[5] < rates[10] == max(rates) == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.01


def test_importing_it_does_not_change_torch_for_others() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
