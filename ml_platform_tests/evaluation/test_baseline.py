"""The baseline learns from the declared features only, whatever their categories look like."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from ml_platform.errors import RefusedError
from ml_platform.evaluation.baseline import fit_and_score
from ml_platform.evaluation.metrics import compute
from ml_platform.pipeline import Features, Pipeline

FEATURES = Features(
    function="ml_platform.naming:load_named", numeric=("size", "age"), categorical=("maker", "place"), keys=("id",)
)


def declared(task: str, label: str) -> Pipeline:
    """What the baseline reads of a pipeline."""
    return cast(Pipeline, SimpleNamespace(task=task, label=label, features=FEATURES))


def rows(count: int, seed: int) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    place = random.integers(0, 600, count)  # more than scikit-learn takes in one column
    size = random.standard_normal(count)
    size[random.random(count) < 0.1] = np.nan
    maker = random.choice(["x", "y", None], count)
    signal = np.nan_to_num(size) + (maker == "x") + (place < 60) + 0.5 * random.standard_normal(count)
    return pl.DataFrame(
        {
            "id": np.arange(count),
            "size": size,
            "age": random.integers(0, 50, count).astype("int32"),
            "maker": maker.tolist(),
            "place": place,
            "late": np.where(random.random(count) < 0.02, None, signal > 1.0).tolist(),
            "grade": np.select([signal > 1.5, signal > 0.3], ["good", "fair"], "poor"),
            "price": 10 * signal,
        },
        schema_overrides={"late": pl.Boolean, "maker": pl.String},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("rows")
    made: dict[str, list[Path]] = {"train": [], "holdout": []}
    for number, part in enumerate(["train", "train", "holdout"]):
        path = folder / f"{number}.parquet"
        rows(6000, number).write_parquet(path)
        made[part].append(path)
    return made


def test_binary_beats_a_constant_and_leaves_out_rows_without_a_label(files):
    result = fit_and_score(declared("binary", "late"), files["train"], files["holdout"], seed=0)
    labels = pl.read_parquet(files["holdout"][0])["late"].drop_nulls()
    assert result.target.tolist() == labels.to_list()
    assert result.classes == (False, True)
    constant = compute("binary", result.target, np.full(len(labels), labels.mean()))
    assert result.metrics["roc_auc"] > 0.8
    assert result.metrics["log_loss"] < 0.8 * constant["log_loss"]


def test_multiclass_and_regression_beat_a_constant(files):
    graded = fit_and_score(declared("multiclass", "grade"), files["train"], files["holdout"], seed=0)
    assert graded.classes == ("fair", "good", "poor")
    assert graded.scores.shape == (6000, 3)
    assert graded.metrics["accuracy"] > 1.2 * max(np.unique(graded.target, return_counts=True)[1]) / 6000
    assert fit_and_score(declared("regression", "price"), files["train"], files["holdout"], seed=0).metrics["r2"] > 0.5


def test_the_same_seed_gives_the_same_scores(files):
    pipeline = declared("binary", "late")
    first, again, other = (fit_and_score(pipeline, files["train"], files["holdout"], seed=s) for s in (1, 1, 2))
    assert np.array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)


def test_a_category_of_many_is_of_use(files, tmp_path):
    """Of 600 places, the label depends on the first 60: the codes must keep what is frequent enough to learn from."""
    frame = rows(6000, 5).with_columns(place=pl.lit("one"))
    frame.write_parquet(tmp_path / "blind.parquet")
    blind = fit_and_score(declared("binary", "late"), [tmp_path / "blind.parquet"], files["holdout"], seed=0)
    seeing = fit_and_score(declared("binary", "late"), files["train"], files["holdout"], seed=0)
    assert seeing.metrics["roc_auc"] > blind.metrics["roc_auc"]


def test_categories_never_seen_do_not_stop_it(files, tmp_path):
    rows(500, 9).with_columns(maker=pl.lit("new"), place=pl.lit(9999)).write_parquet(tmp_path / "new.parquet")
    result = fit_and_score(declared("binary", "late"), files["train"], [tmp_path / "new.parquet"], seed=0)
    assert np.isfinite(result.scores).all()


def test_training_rows_of_one_class_are_refused(files, tmp_path):
    frame: Any = rows(500, 9).with_columns(late=pl.lit(True))
    frame.write_parquet(tmp_path / "one.parquet")
    with pytest.raises(RefusedError, match="1 classes: True"):
        fit_and_score(declared("binary", "late"), [tmp_path / "one.parquet"], files["holdout"], seed=0)


def test_a_holdout_without_labels_is_refused(files, tmp_path):
    rows(50, 9).with_columns(late=pl.lit(None, pl.Boolean)).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(RefusedError, match="No row has a label"):
        fit_and_score(declared("binary", "late"), files["train"], [tmp_path / "none.parquet"], seed=0)
