"""Holdout rows are scored in bounded chunks, and every score stays beside its row's keys."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import polars as pl
import pytest

from ml_platform.errors import FeatureError, RefusedError
from ml_platform.evaluation import baseline, predictions
from ml_platform.pipeline import Pipeline
from ml_platform_tests.registry.trained import TOY, Trained, rows


def write(folder: Path, batches: dict[str, pl.DataFrame]) -> dict[str, list[Path]]:
    paths = {name: [folder / f"{name}.parquet"] for name in batches}
    for name, frame in batches.items():
        frame.write_parquet(paths[name][0])
    return paths


@pytest.fixture
def holdout(tmp_path: Path) -> dict[str, list[Path]]:
    frame = rows(300, 5)
    some = frame.with_columns(late=pl.when(pl.col("id") % 7 > 0).then("late"))
    return write(tmp_path, {"june-01": some[:200], "june-02": some[200:]})


def test_scores_are_those_of_the_scorer_row_by_row(trained: Trained, holdout, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "ROWS", 32)  # several chunks a file
    found = predictions.score(TOY, trained.scorer, holdout, out=tmp_path / "out.parquet")
    whole = pl.concat([pl.read_parquet(paths[0]) for paths in holdout.values()]).drop_nulls("late")
    assert found.target.tolist() == whole["late"].to_list()
    assert np.abs(found.scores - trained.scorer.score(whole.to_arrow())).max() < 1e-6
    assert found.unlabelled == 300 - len(whole)
    assert sum(found.batches.values()) == len(whole)
    kept = pl.read_parquet(tmp_path / "out.parquet")
    assert kept.columns == ["batch", "id", "late", "score"]
    assert kept["id"].to_list() == whole["id"].to_list()
    assert kept["score"].to_numpy() == pytest.approx(found.scores)
    assert dict(kept["batch"].value_counts().iter_rows()) == found.batches


def test_rows_are_the_same_as_the_baselines(trained: Trained, holdout):
    found = predictions.score(TOY, trained.scorer, holdout)
    files = [path for paths in holdout.values() for path in paths]
    beside = baseline.fit_and_score(TOY, files, files, seed=0)
    assert found.target.tolist() == beside.target.tolist()
    assert found.classes == beside.classes


def test_a_holdout_without_labels_is_refused(trained: Trained, tmp_path):
    nothing = write(tmp_path, {"july-01": rows(20, 1).with_columns(late=pl.lit(None, pl.Int64))})
    with pytest.raises(RefusedError, match="20 rows without 'late'"):
        predictions.score(TOY, trained.scorer, nothing)


def test_a_column_of_another_type_is_named(trained: Trained, tmp_path):
    wrong = write(tmp_path, {"july-01": rows(20, 1).with_columns(size=pl.lit("big"))})
    with pytest.raises(FeatureError, match="'size'"):
        predictions.score(TOY, trained.scorer, wrong)


def test_a_label_that_is_a_key_too_is_written_once(trained: Trained, holdout, tmp_path):
    features = SimpleNamespace(columns=TOY.features.columns, keys=("id", "late", "batch"))
    odd = cast(Pipeline, SimpleNamespace(name="toy", label="late", features=features))
    whole = pl.concat([pl.read_parquet(p[0]).with_columns(batch=pl.lit(b)) for b, p in holdout.items()])
    predictions.score(odd, trained.scorer, write(tmp_path, {"all": whole}), out=tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").columns == ["batch", "id", "late", "score"]
