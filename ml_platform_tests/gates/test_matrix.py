"""A feature matrix that cannot teach a model is refused, by column and count; what has drifted is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import DeclarationError
from ml_platform.gates import feature_rows
from ml_platform.gates.declaration import FEATURE_CHECKS, BatchGate, FeatureGate, Limits
from ml_platform.gates.matrix import Finding, examine
from ml_platform.pipeline import Features, NamedBatches, Pipeline, Recipe, Source, Split

ROWS = 400
NAMES = [f"day-{number:02d}" for number in range(20)]


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(
        name="matrix",
        description="",
        batches=NamedBatches(),
        sources=(Source(name="rows", schema="ml_platform_tests.gates.schemas:Orders"),),
        features=Features(
            function="ml_platform_tests.gates.test_matrix:column",
            numeric=("size", "age", "counter"),
            categorical=("maker",),
        ),
        label="late",
        task="binary",
        recipe=Recipe(model="ml_platform_tests.gates.test_matrix:column"),
        split=Split.rolling(holdout=4),
        batch_gate=BatchGate(least=10),
    )


def column(day: int, name: str) -> Any:
    """A column of one day, which is like that of any other day; the counter goes on. It returns `late` too."""
    random = np.random.default_rng([day, len(name)])
    match name:
        case "size":
            return pa.array(random.normal(50, 10, ROWS), mask=random.random(ROWS) < 0.1)
        case "age":
            return pa.array(random.exponential(3, ROWS).round())
        case "counter":
            return pa.array(np.arange(ROWS) + ROWS * day, pa.float64())
        case "maker":
            return pa.array(random.choice(["a", "b", None], ROWS, p=[0.6, 0.3, 0.1]).tolist(), pa.string())
        case _:
            return pa.array((random.random(ROWS) < 0.3).astype(float), mask=random.random(ROWS) < 0.02)


def looked_at(folder: Path, pipeline: Pipeline, **changed: Any) -> dict[str, Finding]:
    """What comes of twenty days; `changed` is a function (day) -> column or None, by column name."""
    files = {}
    for day, name in enumerate(NAMES):
        columns = {c: column(day, c) for c in (*pipeline.features.columns, pipeline.label)}
        for c, change in changed.items():
            if (values := change(day)) is not None:
                columns[c] = values
        files[name] = [folder / f"{name}.parquet"]
        pq.write_table(pa.table(columns), files[name][0])
    train, holdout = pipeline.split.divide(NAMES)
    found = examine(pipeline, train={b: files[b] for b in train}, holdout={b: files[b] for b in holdout})
    assert [finding.name for finding in found] == list(FEATURE_CHECKS)
    return {finding.name: finding for finding in found}


def refused(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.rejects}


def told(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if not finding.passed}


def test_sound_features_pass_every_check(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(tmp_path, pipeline)
    assert told(found) == {"holdout_like_train"}, "the counter has gone on, as counters do"
    assert "counter" in found["holdout_like_train"].message
    assert not refused(found)


def test_an_infinite_value_is_refused_with_its_column_and_count(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(
        tmp_path, pipeline, age=lambda day: pa.array([1.0, np.inf, -np.inf] + [2.0] * 397) if day == 5 else None
    )
    assert refused(found) == {"finite"}
    assert "age (2 rows)" in found["finite"].message
    (row,) = found["finite"].tables["infinite"]
    assert (row["column"], row["batch"], row["infinite"]) == ("age", "day-05", 2)


def test_not_a_number_is_missing_and_not_infinite(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(tmp_path, pipeline, age=lambda day: pa.array([np.nan] * 5 + [2.0, 3.0] + [4.0] * 393))
    assert not refused(found)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("age", pa.array([7.0] * ROWS), "age (always 7.0)"),
        ("age", pa.nulls(ROWS, pa.float64()), "age (no value)"),
        ("age", pa.array([np.nan] * ROWS), "age (no value)"),
        ("maker", pa.array(["a"] * ROWS), "maker (always 'a')"),
        ("maker", pa.nulls(ROWS, pa.string()), "maker (no value)"),
    ],
)
def test_a_column_that_tells_nothing_is_refused(
    pipeline: Pipeline, tmp_path: Path, name: str, values: pa.Array, said: str
) -> None:
    train = len(NAMES) - 4
    found = looked_at(tmp_path, pipeline, **{name: lambda day: values if day < train else None})
    assert refused(found) == {"not_constant"}
    assert said in found["not_constant"].message
    allowed = replace(pipeline, feature_gate=FeatureGate(may_be_constant=(name,)))
    assert not refused(looked_at(tmp_path, allowed, **{name: lambda day: values if day < train else None}))


def test_a_column_that_is_constant_within_each_batch_is_none(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(tmp_path, pipeline, age=lambda day: pa.array([float(day % 7)] * ROWS))
    assert not refused(found)


def test_another_type_or_a_missing_column_is_refused_before_anything_else(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(tmp_path, pipeline, maker=lambda day: pa.array([3] * ROWS) if day == 7 else None)
    assert refused(found) == {"columns_as_declared"}
    assert "maker is int64 and not string in day-07" in found["columns_as_declared"].message
    assert found["finite"].message == "Not reached."
    wider = replace(pipeline, features=replace(pipeline.features, numeric=("size", "age", "counter", "weight")))
    files = {name: [tmp_path / f"{name}.parquet"] for name in NAMES}
    (first, *_) = examine(wider, train=files, holdout={})
    assert "weight is missing and not double in day-00" in first.message


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (lambda day: pa.array([0.0] * ROWS), "1 in the training rows: '0.0'"),
        (lambda day: pa.array(([0.0, 1.0, 2.0, 1.0] * ROWS)[:ROWS]), "3 in the training rows"),
        (lambda day: pa.nulls(ROWS, pa.float64()), "no training row has a label"),
        (lambda day: pa.array([2.0] * ROWS) if day == 19 else None, "a third value among the held-out rows: '2.0'"),
    ],
)
def test_a_label_that_is_none_for_the_task_is_refused(
    pipeline: Pipeline, tmp_path: Path, label: Any, said: str
) -> None:
    found = looked_at(tmp_path, pipeline, late=label)
    assert refused(found) == {"label_valid"}
    assert said in found["label_valid"].message


def test_a_feature_in_another_unit_is_told_and_rejected_only_where_that_is_declared(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    def in_inches(day: int) -> Any:
        return pa.array(np.random.default_rng(day).normal(50, 10, ROWS) / 2.54) if day == 12 else None

    found = looked_at(tmp_path, pipeline, size=in_inches)
    assert "no_drift" in told(found)
    assert not refused(found)
    assert "day-12 size mean" in found["no_drift"].message
    worst = found["no_drift"].tables["farthest"][0]
    assert (worst["batch"], worst["column"]) == ("day-12", "size")
    strict = replace(pipeline, feature_gate=FeatureGate(drift=Limits(warn=8, reject=10)))
    assert refused(looked_at(tmp_path, strict, size=in_inches)) == {"no_drift"}


@pytest.mark.parametrize("wrong", [12, 19])
def test_a_batch_that_is_far_off_does_not_hide_itself(pipeline: Pipeline, tmp_path: Path, wrong: int) -> None:
    found = looked_at(
        tmp_path, pipeline, size=lambda day: pa.array(np.full(ROWS, 5000.0) + np.arange(ROWS)) if day == wrong else None
    )
    assert f"day-{wrong} size mean" in found["no_drift"].message
    assert "counter" not in found["no_drift"].message


def test_a_label_that_comes_more_often_is_told(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(
        tmp_path, pipeline, late=lambda day: pa.array(([1.0] * 9 + [0.0]) * (ROWS // 10)) if day == 15 else None
    )
    assert "label_rate" in told(found)
    assert "day-15 late share of" in found["label_rate"].message
    assert "no_drift" not in told(found)


def test_held_out_rows_of_another_kind_are_told(pipeline: Pipeline, tmp_path: Path) -> None:
    found = looked_at(tmp_path, pipeline, maker=lambda day: pa.array(["c"] * ROWS) if day >= 16 else None)
    assert found["holdout_like_train"].tables["farthest"][0]["column"] in ("maker", "counter")
    assert "maker" in found["holdout_like_train"].message


def test_files_in_chunks_say_what_whole_files_say(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = looked_at(tmp_path, pipeline, age=lambda day: pa.array([np.inf] + [2.0] * 399) if day == 3 else None)
    monkeypatch.setattr(feature_rows, "ROWS", 64)
    cut = looked_at(tmp_path, pipeline, age=lambda day: pa.array([np.inf] + [2.0] * 399) if day == 3 else None)
    assert [(f.name, f.passed, f.rejects) for f in cut.values()] == [
        (f.name, f.passed, f.rejects) for f in whole.values()
    ]
    assert cut["finite"] == whole["finite"]


def test_few_batches_are_compared_with_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    looked_at(tmp_path, pipeline)
    few = {name: [tmp_path / f"{name}.parquet"] for name in NAMES[:6]}
    held = {few_name: few.pop(few_name) for few_name in NAMES[4:6]}
    found = {f.name: f for f in examine(pipeline, train=few, holdout=held)}
    assert found["no_drift"].passed
    assert "fewer than 10" in found["no_drift"].message


def test_a_gate_that_names_no_feature_is_refused_when_it_is_declared(pipeline: Pipeline) -> None:
    with pytest.raises(DeclarationError, match="weight"):
        replace(pipeline, feature_gate=FeatureGate(may_be_constant=("weight",)))
