"""A feature that gives the label away is found, whatever its name and shape; honest ones are left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.gates.leakage import separation, suspicious
from ml_platform.pipeline import Features, NamedBatches, Pipeline, Recipe, Source, Split

ROWS = 6000


def pipeline(task: str, **columns: str) -> Pipeline:
    """A pipeline of these features, "numeric" or "categorical" each, that predicts `label`."""
    return Pipeline(
        name="leaks",
        description="",
        batches=NamedBatches(),
        sources=(Source(name="rows", schema="ml_platform_tests.gates.schemas:Orders"),),
        features=Features(
            function="ml_platform_tests.gates.test_leakage:pipeline",
            numeric=tuple(name for name, kind in columns.items() if kind == "numeric"),
            categorical=tuple(name for name, kind in columns.items() if kind == "categorical"),
        ),
        label="label",
        task=task,  # type: ignore[arg-type]
        recipe=Recipe(model="ml_platform_tests.gates.test_leakage:pipeline"),
        split=Split.rolling(holdout=1),
    )


def binary() -> tuple[pa.Table, Pipeline, set[str]]:
    """Rows with leaks of many shapes among honest features; the names of the leaks."""
    random = np.random.default_rng(3)
    label = (random.random(ROWS) < 0.25).astype(int)
    noise = random.normal(size=ROWS)
    honest: dict[str, tuple[str, Any]] = {
        "noise": ("numeric", noise),
        "useful": ("numeric", random.normal(size=ROWS) + label),
        "group": ("categorical", random.choice(list("abcdef"), ROWS)),
        "row_id": ("categorical", np.arange(ROWS)),
        "often_missing": ("numeric", pa.array(np.where(random.random(ROWS) < 0.7, np.nan, noise), from_pandas=True)),
        "constant": ("numeric", np.ones(ROWS)),
        "all_missing": ("numeric", pa.nulls(ROWS, pa.float64())),
        "no_category": ("categorical", pa.nulls(ROWS, pa.string())),
        "huge": ("numeric", np.where(noise > 3, np.inf, noise * 1e300)),
    }
    leaks: dict[str, tuple[str, Any]] = {
        "copy": ("numeric", label.astype(float)),
        "flag": ("numeric", pa.array(label == 1)),
        "renamed_and_noisy": ("numeric", 1000 - 40 * label + random.normal(size=ROWS) * 5),
        "both_ends": ("numeric", np.where(label == 1, np.sign(noise) * 5, noise / 5)),
        "empty_when_late": ("numeric", pa.array(np.where(label == 1, np.nan, noise), from_pandas=True)),
        "nan_when_late": ("numeric", np.where(label == 1, np.nan, noise)),
        "status": ("categorical", np.where(label == 1, "late", random.choice(["early", "on time"], ROWS))),
        "status_missing": ("categorical", pa.array([None if value else "x" for value in label])),
        "code": ("categorical", label * 100 + random.integers(0, 100, ROWS)),
    }
    columns = honest | leaks
    table = pa.table({name: values for name, (_, values) in columns.items()} | {"label": label})
    return table, pipeline("binary", **{name: kind for name, (kind, _) in columns.items()}), set(leaks)


def test_leaks_are_found_and_honest_features_are_not() -> None:
    table, declared, leaks = binary()
    scores = separation(table, declared)
    assert tuple(scores) == declared.features.columns
    assert all(0.5 <= score <= 1 for score in scores.values())
    assert set(suspicious(scores, declared.leakage_limit)) == leaks
    assert 0.6 < scores["useful"] < 0.85
    assert scores["row_id"] < 0.55


def test_the_same_rows_and_seed_give_the_same_scores() -> None:
    table, declared, _ = binary()
    assert separation(table, declared, seed=1, rows=2000) == separation(table, declared, seed=1, rows=2000)


def test_text_labels_and_missing_labels() -> None:
    table, declared, leaks = binary()
    named = pa.array(
        [
            None if row % 10 == 0 else "late" if value else "on time"
            for row, value in enumerate(table["label"].to_pylist())
        ]
    )
    table = table.set_column(table.schema.get_field_index("label"), "label", named)
    assert set(suspicious(separation(table, declared), declared.leakage_limit)) == leaks


def test_more_than_two_classes() -> None:
    random = np.random.default_rng(5)
    label = random.choice(["red", "green", "blue"], ROWS, p=[0.6, 0.3, 0.1])
    number = {"red": 3.0, "green": 1.0, "blue": 2.0}
    table = pa.table(
        {
            "noise": random.normal(size=ROWS),
            "number": [number[value] for value in label],
            "same": ["~" + value for value in label],
            "group": random.choice(["a", "b"], ROWS),
            "label": label,
        }
    )
    declared = pipeline("multiclass", noise="numeric", number="numeric", same="categorical", group="categorical")
    assert set(suspicious(separation(table, declared), 0.95)) == {"number", "same"}


def test_a_number_as_label() -> None:
    random = np.random.default_rng(6)
    label = random.normal(size=ROWS) * 7 + 100
    table = pa.table(
        {
            "noise": random.normal(size=ROWS),
            "useful": label + random.normal(size=ROWS) * 14,
            "scaled": label * -3 + random.normal(size=ROWS) * 0.5,
            "label": label,
        }
    )
    scores = separation(table, pipeline("regression", noise="numeric", useful="numeric", scaled="numeric"))
    assert set(suspicious(scores, 0.95)) == {"scaled"}
    assert 0.55 < scores["useful"] < 0.75


@pytest.mark.parametrize("label", [[1] * 50, [None] * 50, [0, 1] * 5])
def test_nothing_to_learn_from_is_no_leak(label: list[int | None]) -> None:
    table = pa.table({"x": list(range(len(label))), "label": pa.array(label, pa.int64())})
    assert separation(table, pipeline("binary", x="numeric")) == {"x": 0.5}


def test_the_worst_offender_comes_first() -> None:
    assert list(suspicious({"a": 0.96, "b": 0.5, "c": 1.0}, 0.95)) == ["c", "a"]
    assert replace(pipeline("binary", x="numeric"), leakage_limit=1.0).leakage_limit == 1.0
