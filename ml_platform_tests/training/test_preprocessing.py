from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import FeatureError, TrainingError
from ml_platform.training import fitting
from ml_platform.training.preprocessing import Preprocessing
from ml_platform_tests.training import made

TABLE = pa.table(
    {
        "x": [1.0, 2.0, None, 5.0, float("inf"), float("nan")],
        "z": [4, 4, 4, 4, 4, 4],
        "place": pa.array(["b", "a", None, "b", "c", "a"]).dictionary_encode(),
        "month": pa.array([10, 2, 2, None, 10, 2], pa.int16()),
        "late": [True, False, True, False, True, False],
    }
)


def fit(table: pa.Table, *, parts: int = 1, **changes: object) -> Preprocessing:
    job = made.job(["made.parquet"], **changes)
    kinds = fitting.kinds(job, table.schema)
    size = -(-table.num_rows // parts)
    shares = [fitting.summarize(job, kinds, table.slice(i * size, size)) for i in range(parts)]
    return fitting.finish(job, shares)


def test_numbers_are_scaled_and_what_is_missing_is_the_mean_and_says_so() -> None:
    encoded = fit(TABLE).encode(TABLE)
    mean, std = 8 / 3, np.std([1, 2, 5])
    expected = [(1 - mean) / std, (2 - mean) / std, 0, (5 - mean) / std, 0, 0]
    assert encoded.numeric[:, 0] == pytest.approx(expected)
    assert encoded.numeric[:, 1].tolist() == [0] * 6  # a constant says nothing, and divides by nothing
    assert encoded.numeric[:, 2].tolist() == [0, 0, 1, 0, 1, 1]
    assert fit(TABLE).inputs().numeric_names == ("x", "z", "x is missing")


def test_categories_are_coded_by_sorted_value_with_0_for_missing_and_unknown() -> None:
    fitted = fit(TABLE)
    assert [c.values for c in fitted.categorical] == [("a", "b", "c"), (2, 10)]
    assert fitted.encode(TABLE).categorical.tolist() == [[2, 2], [1, 1], [0, 1], [2, 0], [3, 2], [1, 1]]
    other = TABLE.set_column(2, "place", pa.array(["zzz", "a", "A", "", None, "c"]))
    assert fitted.encode(other).categorical[:, 0].tolist() == [0, 1, 0, 0, 0, 3]


def test_parts_merge_to_what_the_whole_says() -> None:
    random = np.random.default_rng(0)
    x = random.normal(1e6, 1, 4000)
    table = pa.table(
        {
            "x": x,
            "z": random.normal(size=4000),
            "place": random.choice(["a", "b", "c"], 4000),
            "month": random.integers(0, 99, 4000),
            "late": random.random(4000) < 0.5,
        }
    )
    whole, parts = fit(table), fit(table, parts=7)
    assert parts.numeric[0].mean == pytest.approx(x.mean(), rel=1e-12)
    assert parts.numeric[0].std == pytest.approx(x.std(), rel=1e-9)
    assert (parts.categorical, parts.label) == (whole.categorical, whole.label)
    assert fit(table, parts=7) == parts


def test_it_survives_being_written_and_read() -> None:
    fitted = fit(TABLE)
    assert Preprocessing.from_record(fitted.to_record()) == fitted


def test_a_category_reads_the_same_however_the_column_is_encoded() -> None:
    fitted = fit(TABLE)
    plain = TABLE.set_column(2, "place", TABLE["place"].cast(pa.string()))
    large = TABLE.set_column(2, "place", TABLE["place"].cast(pa.large_string()))
    floats = TABLE.set_column(3, "month", pa.array([10.0, 2.0, 2.0, float("nan"), 10.0, 2.0]))
    for table in (plain, large, floats):
        assert fitted.encode(table).categorical.tolist() == fitted.encode(TABLE).categorical.tolist()


@pytest.mark.parametrize(
    "raw",
    [
        pa.array([5, 17, None, 99], pa.int32()),
        pa.array([5, 17, None, 99], pa.int64()),
        pa.array([5.0, 17.0, float("nan"), 99.0]),  # what pandas makes of whole numbers with a missing one
        pa.array([5.0, 17.0, None, 99.0], pa.float32()),
        pa.array([5, 17, None, 99], pa.int16()).dictionary_encode(),
    ],
)
def test_a_whole_number_is_the_text_that_the_feature_job_made_of_it(raw: pa.Array) -> None:
    fitted = fit(TABLE.set_column(2, "place", pa.array(["5", "17", "5", "17", "5", None])))
    rows = TABLE.slice(0, 4).set_column(2, "place", raw)
    assert fitted.encode(rows).categorical[:, 0].tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize("missing", [pa.nulls(6), pa.nulls(6, pa.string()), pa.nulls(6, pa.float64())])
def test_a_column_may_be_missing_throughout(missing: pa.Array) -> None:
    fitted = fit(TABLE)
    for name in ("x", "place", "month"):
        rows = TABLE.set_column(TABLE.column_names.index(name), name, missing)
        assert fitted.encode(rows).numeric.shape == (6, 3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x", ["1.0", "two", None, "5", "6", "7"]),
        ("x", ["1.0", "2.0", None, "5", "6", "7"]),
        ("month", [1.5, 2, 3, 4, 5, 6]),
        ("month", ["January"] * 6),
        ("place", [1.5] * 6),
        ("x", [[1.0]] * 6),
    ],
)
def test_a_value_that_cannot_be_read_names_its_column(name: str, values: list[object]) -> None:
    table = TABLE.set_column(TABLE.column_names.index(name), name, pa.array(values))
    with pytest.raises(FeatureError, match=f"column '{name}'"):
        fit(TABLE).encode(table)


@pytest.mark.parametrize(
    ("task", "labels", "says"),
    [
        ("binary", [1, 1, 1, 1, 1, 1], "two values"),
        ("binary", [0, 1, 2, 0, 1, 2], "two values"),
        ("multiclass", ["a"] * 6, "at least two values"),
        ("regression", [1.0, float("inf"), 1, 1, 1, 1], "infinite"),
    ],
)
def test_a_label_must_suit_its_task(task: str, labels: list[object], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        fit(TABLE.set_column(4, "late", pa.array(labels)), task=task)


def test_a_label_of_whole_floats_has_whole_classes() -> None:
    assert fit(TABLE.set_column(4, "late", pa.array([0.0, 1, 1, 0, 0, 1]))).label.classes == (0, 1)


def test_a_float_is_not_a_category(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="column 'x'"):
        fit(TABLE, numeric=("z",), categorical=("x",))
