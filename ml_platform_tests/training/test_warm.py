"""Training that goes on from an earlier model's weights, in this process, as the only rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.training.config import TrainingJob, Warm
from ml_platform.training.result import CONTENT, read_result
from ml_platform.training.scoring import Scorer
from ml_platform_tests.training import made
from ml_platform_tests.training.made import train

ALONE: dict[str, Any] = {"processes": 1, "task": "multiclass", "label": "kind", "epochs": 2}


@pytest.fixture(scope="module")
def parent(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the first three files."""
    return train(made.job(paths[:3], tmp_path_factory.mktemp("models") / "parent", **{**ALONE, "epochs": 8}))


def warm_job(paths: list[str], parent: Path, out: Path, files: list[str] | None = None, **changes: Any) -> TrainingJob:
    warm = Warm(parent="p", folder=str(parent), files=tuple(paths[3:] if files is None else files))
    return made.job(paths, out, warm=warm, **{**ALONE, **changes})


def history(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "history.json").read_text())
    return found


def same(a: Path, b: Path) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in CONTENT)


def test_it_begins_where_the_parent_ended_and_sees_only_what_it_is_given(
    paths: list[str], parent: Path, tmp_path: Path
) -> None:
    warm = history(train(warm_job(paths, parent, tmp_path / "warm")))
    cold = history(train(made.job(paths[3:], tmp_path / "cold", **ALONE)))
    assert warm["warm_start"] == {"warm": True, "cold": "", "unknown_categories": {}}
    assert warm["rows"] == cold["rows"] < history(parent)["rows"]
    assert warm["epochs"][0]["train_loss"] < 0.7 * cold["epochs"][0]["train_loss"]
    assert (tmp_path / "warm" / "preprocessing.json").read_bytes() == (parent / "preprocessing.json").read_bytes()
    assert json.loads((tmp_path / "warm" / "model.json").read_text())["warm_start"] == "p"


def test_the_same_parent_and_rows_give_the_same_bytes_and_others_do_not(
    paths: list[str], parent: Path, tmp_path: Path
) -> None:
    first, second = (train(warm_job(paths, parent, tmp_path / name)) for name in ("first", "second"))
    assert same(first, second)
    more = train(warm_job(paths, parent, tmp_path / "more", files=[paths[0], paths[3]]))
    assert not same(first, more)
    assert not same(first, parent)
    assert read_result(first) is not None
    assert len(Scorer.load(first).classes) == 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hyperparameters": {"hidden": [8]}}, "with another hyperparameters"),
        ({"numeric": ("z", "x")}, "for another numeric"),
        ({"label": "late", "task": "binary"}, "for another task: multiclass"),
    ],
)
def test_a_parent_that_does_not_fit_leaves_a_model_that_began_anew(
    paths: list[str], parent: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    tried = train(warm_job(paths, parent, tmp_path / "tried", **changes))
    assert says in history(tried)["warm_start"]["cold"]
    assert same(tried, train(made.job(paths, tmp_path / "anew", **{**ALONE, **changes})))


def test_a_new_class_begins_anew_and_a_new_category_does_not(paths: list[str], parent: Path, tmp_path: Path) -> None:
    table = pq.read_table(paths[3])

    def changed(column: str, value: str) -> list[str]:
        path = tmp_path / f"{column}.parquet"
        values = [value, *table[column].to_pylist()[1:]]
        pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(values)), path)
        return [*paths[:3], str(path)]

    elsewhere = changed("place", "LHR")
    there = history(train(warm_job(elsewhere, parent, tmp_path / "there", files=elsewhere[3:])))
    assert there["warm_start"] == {"warm": True, "cold": "", "unknown_categories": {"place": 1}}
    better = changed("kind", "best")
    found = history(train(warm_job(better, parent, tmp_path / "better", files=better[3:])))
    assert "a class that it never saw: best" in found["warm_start"]["cold"]
    assert found["rows"] > there["rows"], "it saw all batches"


def test_what_a_job_goes_on_from_is_part_of_what_it_is(paths: list[str], parent: Path, tmp_path: Path) -> None:
    job = warm_job(paths, parent, tmp_path / "model")
    assert TrainingJob.from_json(job.to_json()) == job
    elsewhere = warm_job(paths, parent.with_name("elsewhere"), tmp_path / "model")
    assert elsewhere.identity() == job.identity(), "where the folder is does not matter"
    assert made.job(paths, tmp_path / "model", **ALONE).identity() != job.identity()
