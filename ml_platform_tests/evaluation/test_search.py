"""A part on which a model is bad is found without being declared; where there is none, nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ml_platform.evaluation.declaration import ModelGate
from ml_platform.evaluation.intervals import Answers
from ml_platform.evaluation.search import Search, search
from ml_platform.evaluation.slices import MISSING

ROWS = 6000
GATE = ModelGate(slice_rows=100)


def columns(seed: int) -> dict[str, npt.NDArray[np.object_]]:
    """Two columns of categories and two of numbers, in no relation to each other."""
    random = np.random.default_rng(seed)
    heat = random.normal(20, 8, ROWS)
    heat[random.random(ROWS) < 0.1] = np.nan
    return {
        "carrier": random.choice(["AA", "DL", "HA"], ROWS, p=[0.5, 0.3, 0.2]),
        "origin": random.choice(["EWR", "JFK", None, "XXX"], ROWS, p=[0.5, 0.4, 0.09, 0.01]),
        "heat": heat,
        "hour": random.integers(0, 24, ROWS).astype(float),
    }


def looked(
    made: Mapping[str, npt.NDArray[np.object_]], bad: npt.NDArray[np.bool_], *, task: str = "binary", seed: int = 0
) -> Search:
    """What is found where scores are noise on the `bad` rows."""
    random = np.random.default_rng(seed + 100)
    signal = random.random(ROWS)
    said = np.where(bad, random.random(ROWS), signal)
    if task == "regression":
        answers = Answers(task="regression", target=100 * signal + random.normal(size=ROWS), scores=100 * said)
    else:
        target, wide = (random.random(ROWS) < signal).astype(int), np.clip(said, 0.01, 0.99)
        answers = Answers(task="binary", target=target, scores=wide, classes=(0, 1))
        if task == "multiclass":
            answers = replace(answers, task="multiclass", scores=np.column_stack([1 - wide, wide]))
    arrays = {name: pa.chunked_array([pa.array(values.tolist())]) for name, values in made.items()}
    return search(
        answers,
        categorical={name: arrays[name] for name in ("carrier", "origin")},
        numeric={name: arrays[name] for name in ("heat", "hour")},
        metric={"binary": "roc_auc", "multiclass": "accuracy", "regression": "mae"}[task],
        gate=GATE,
        baseline=answers,
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_bad_value_is_found_and_pairs_with_it_add_nothing(task: str) -> None:
    made = columns(1)
    found = looked(made, made["carrier"] == "HA", task=task)
    assert [dict(each.where) for each in found.slices] == [{"carrier": "HA"}]
    (worst,) = found.slices
    assert worst.rows == (made["carrier"] == "HA").sum()
    assert 0 < worst.worse_by < worst.loss - worst.others
    assert worst.figure is not None
    assert worst.low is not None
    assert worst.high is not None
    assert worst.low <= worst.figure <= worst.high
    assert worst.baseline == worst.figure


def test_a_bad_pair_of_a_value_and_a_range_is_found() -> None:
    made = columns(2)
    hot = np.nan_to_num(made["heat"].astype(float), nan=0.0) > np.nanquantile(made["heat"].astype(float), 0.8)
    found = looked(made, (made["carrier"] == "DL") & hot)
    where = dict(found.slices[0].where)
    assert where.keys() == {"carrier", "heat"}
    assert where["carrier"] == "DL"
    assert where["heat"].startswith(">= ")
    assert len(found.slices) == 1, "what overlaps with it is told once"


def test_what_is_missing_is_a_part_too() -> None:
    made = columns(3)
    assert dict(looked(made, np.isnan(made["heat"].astype(float))).slices[0].where) == {"heat": MISSING}
    assert dict(looked(made, made["origin"] == None).slices[0].where) == {"origin": MISSING}  # noqa: E711


def test_a_hundred_searches_where_there_is_nothing_find_about_as_much_as_the_confidence_says() -> None:
    nothing = np.zeros(ROWS, dtype=bool)
    found = [looked(columns(seed), nothing, seed=seed) for seed in range(100)]
    assert all(each.looks > 50 for each in found)
    assert sum(bool(each.slices) for each in found) <= 12, "5 are allowed, and 12 is beyond chance"


def test_nothing_is_looked_at_where_scores_are_not_finite_or_rows_too_few() -> None:
    made = columns(4)
    arrays = {name: pa.chunked_array([pa.array(values.tolist())]) for name, values in made.items()}
    answers = Answers(task="regression", target=np.zeros(ROWS), scores=np.full(ROWS, np.nan))
    gone = {"numeric": {"heat": arrays["heat"]}, "categorical": {}}
    assert search(answers, metric="mae", gate=GATE, **gone).looks == 0
    few = Answers(task="regression", target=np.zeros(ROWS), scores=np.arange(ROWS, dtype=float))
    assert search(few, metric="mae", gate=ModelGate(slice_rows=ROWS), **gone).slices == ()
    empty = {"numeric": {"x": pa.chunked_array([pa.nulls(ROWS, pa.float64())])}, "categorical": {}}
    assert search(few, metric="mae", gate=GATE, **empty).looks == 0, "all rows, again"
