"""The feature job: many batches in one Spark job come to what each comes to alone, in one canonical form."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import FeatureError, PlatformError
from ml_platform.pipeline import Features, NamedBatches, Pipeline, Recipe, Reference, Source, Split
from ml_platform.stages import feature_files
from ml_platform.stages.feature_frames import read_references
from ml_platform.stages.feature_job import SQL_SETTINGS, compute
from ml_platform.versions.content import content_versions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Compute = Callable[..., dict[str, pa.Table]]
SCHEMA = "ml_platform_tests.tiny_pipeline.schema:Readings"


def declare(function: str, *, lookback: int = 0, references: Sequence[str] = ()) -> Pipeline:
    """A pipeline over "sales" with one of the functions in `feature_functions`."""
    return Pipeline(
        name="probe",
        description="Probes the feature job.",
        batches=NamedBatches(),
        sources=(Source(name="sales", schema=SCHEMA),),
        references=tuple(Reference(name=name, schema=SCHEMA) for name in references),
        features=Features(
            function=f"ml_platform_tests.stages.feature_functions:{function}",
            numeric=("amount", "total"),
            categorical=("shop",),
            keys=("id",),
            lookback=lookback,
        ),
        label="good",
        task="binary",
        recipe=Recipe(model="ml_platform.training.models:mlp"),
        split=Split.rolling(holdout=1),
    )


def sales(*rows: tuple[int, int, float | None]) -> pa.Table:
    """Sales from (id, shop, amount)."""
    ids, shops, amounts = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "shop": pa.array(shops, pa.int32()),
            "amount": pa.array(amounts, pa.float64()),
        }
    )


MONDAY = sales((1, 1, 5.0), (2, 1, 20.0), (3, 2, 7.0))
TUESDAY = sales((4, 1, 100.0), (5, 2, 1.0))
WEDNESDAY = sales((6, 2, 3.0))
WEEK = {"monday": MONDAY, "tuesday": TUESDAY, "wednesday": WEDNESDAY}


def stored(folder: Path, tables: Mapping[str, pa.Table], source: str = "sales") -> dict[str, dict[str, Path]]:
    """Files as the store keeps them: named by content, equal content once."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for batch, table in tables.items():
        path = folder / f"{abs(hash(tuple(map(str, table.to_pylist())))):x}"
        pq.write_table(table, path)
        files[batch] = {source: path}
    return files


def read(files: Mapping[str, Sequence[Path]]) -> dict[str, pa.Table]:
    """The rows of every batch, in file order."""
    return {batch: pa.concat_tables([pq.ParquetFile(path).read() for path in paths]) for batch, paths in files.items()}


@pytest.fixture
def run(spark: SparkSession, tmp_path: Path) -> Compute:
    """Compute tables by batch with one of the functions, and read the result."""

    def run(
        function: str, tables: Mapping[str, pa.Table] = WEEK, *, lookback: int = 0, **options: Any
    ) -> dict[str, pa.Table]:
        pipeline = declare(function, lookback=lookback)
        options = {"history": {}, "references": {}, "out": tmp_path / "out", **options}
        return read(compute(spark, pipeline, stored(tmp_path / "store", tables), **options))

    return run


@contextmanager
def sql(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """SQL settings for a while."""
    before = {name: spark.conf.get(name, None) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            spark.conf.unset(name) if old is None else spark.conf.set(name, old)


def test_every_batch_has_its_rows_in_the_stored_form(run: Compute) -> None:
    found = run("right")
    assert list(found) == ["monday", "tuesday", "wednesday"]
    assert found["monday"].to_pylist() == [
        {"id": 1, "amount": 5.0, "total": 25.0, "shop": "1", "good": 0.0},
        {"id": 2, "amount": 20.0, "total": 25.0, "shop": "1", "good": 1.0},
        {"id": 3, "amount": 7.0, "total": 7.0, "shop": "2", "good": 0.0},
    ]
    assert found["tuesday"]["total"].to_pylist() == [100.0, 1.0]
    assert [str(t) for t in found["monday"].schema.types] == ["int64", "double", "double", "string", "double"]


def test_missing_values_are_null_and_never_nan(run: Compute) -> None:
    found = run("right", {"a": sales((1, 1, None), (2, 2, float("nan"))), "b": MONDAY})["a"]
    assert found["amount"].null_count == 2
    assert found["total"].null_count == 2
    assert found["good"].to_pylist()[0] is None


def test_rows_have_one_order_however_they_lay_and_were_shuffled(spark: SparkSession, tmp_path: Path) -> None:
    table = sales(*((n, n % 3, float(n % 7)) for n in range(200)))
    backwards = table.take(list(reversed(range(200))))
    results = []
    for number, (rows, tasks) in enumerate(((table, "1"), (backwards, "8"))):
        with sql(spark, {"spark.sql.shuffle.partitions": tasks, "spark.sql.adaptive.enabled": "false"}):
            files = stored(tmp_path / f"store{number}", {"a": rows, "b": MONDAY})
            written = compute(spark, declare("right"), files, history={}, references={}, out=tmp_path / f"out{number}")
        assert len(written["a"]) == 1
        results.append((content_versions(written), [path.read_bytes() for path in written["a"]]))
    assert results[0] == results[1]


def test_a_large_batch_has_several_files_of_equal_row_groups(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "GROUP_ROWS", 10)
    monkeypatch.setattr(feature_files, "FILE_GROUPS", 3)
    table = sales(*((n, 1, 1.0) for n in range(64)))
    files = stored(tmp_path / "store", {"a": MONDAY, "b": table, "c": table.slice(0, 60), "d": MONDAY})
    written = compute(spark, declare("right"), files, history={}, references={}, out=tmp_path / "out")
    groups = {
        batch: [[m.row_group(i).num_rows for i in range(m.num_row_groups)] for m in map(pq.read_metadata, paths)]
        for batch, paths in written.items()
    }
    assert groups == {
        "a": [[3]],
        "b": [[10, 10, 10], [10, 10, 10], [4]],
        "c": [[10, 10, 10], [10, 10, 10]],
        "d": [[3]],
    }
    assert read(written)["b"]["id"].to_pylist() == list(range(64))


def test_a_batch_alone_comes_to_what_it_comes_to_among_others(
    run: Compute, tmp_path: Path, spark: SparkSession
) -> None:
    together = run("right")
    for batch, table in WEEK.items():
        files = stored(tmp_path / "alone", {batch: table})
        alone = compute(spark, declare("right"), files, history={}, references={}, out=tmp_path / f"out-{batch}")
        assert read(alone)[batch].equals(together[batch])


def test_batches_of_equal_content_share_a_file_and_both_have_rows(run: Compute) -> None:
    found = run("right", {"a": MONDAY, "b": MONDAY, "c": TUESDAY})
    assert found["a"].equals(found["b"])
    assert found["a"].num_rows == 3


def test_a_source_may_have_several_files_and_any_path(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "a folder [1] {x}*?"
    parts = [stored(folder, {"x": table})["x"]["sales"] for table in (MONDAY, TUESDAY)]
    found = compute(spark, declare("right"), {"a": {"sales": parts}}, history={}, references={}, out=folder / "out [2]")
    assert read(found)["a"]["total"].to_pylist() == [125.0, 125.0, 8.0, 100.0 + 25.0, 8.0]


def test_batches_without_rows_still_have_a_file_of_the_same_columns(run: Compute) -> None:
    found = run("only_large", {**WEEK, "empty": sales()})
    assert {batch: table.num_rows for batch, table in found.items()} == {
        "monday": 0,
        "tuesday": 1,
        "wednesday": 0,
        "empty": 0,
    }
    assert {str(table.schema.remove_metadata()) for table in found.values()} == {
        str(found["tuesday"].schema.remove_metadata())
    }


def test_nothing_but_empty_batches(run: Compute) -> None:
    found = run("right", {"a": sales(), "b": sales()})
    assert [table.num_rows for table in found.values()] == [0, 0]
    assert found["a"].schema.names == ["id", "amount", "total", "shop", "good"]


def test_no_batches_cost_nothing(run: Compute) -> None:
    assert run("right", {}) == {}


def test_a_reference_is_the_same_for_every_batch(spark: SparkSession, tmp_path: Path) -> None:
    prices = pa.table({"shop": pa.array([1], pa.int32()), "total": pa.array([9.5])})
    path = stored(tmp_path / "prices", {"": prices}, "prices")[""]["prices"]
    pipeline = declare("priced", references=["prices"])
    files = stored(tmp_path / "store", WEEK)
    found = read(compute(spark, pipeline, files, history={}, references={"prices": path}, out=tmp_path / "out"))
    assert found["monday"]["total"].to_pylist() == [9.5, 9.5, None]


def test_look_back_shows_the_batches_before_under_the_batch_itself(run: Compute) -> None:
    history = {"monday": [], "tuesday": ["monday"], "wednesday": ["tuesday", "monday"]}
    found = run("from_before", lookback=2, history=history)
    assert found["monday"]["total"].to_pylist() == [6.0] * 3
    assert found["tuesday"]["total"].to_pylist() == [9.0 + 3006.0] * 2
    assert found["wednesday"]["total"].to_pylist() == [6.0 + 2009.0 + 6006.0]


def test_only_the_targets_are_computed_and_others_are_looked_back_on(run: Compute) -> None:
    found = run("from_before", lookback=1, history={"wednesday": ["tuesday"]}, targets=["wednesday"])
    assert list(found) == ["wednesday"]
    assert found["wednesday"]["total"].to_pylist() == [6.0 + 2009.0]


@pytest.mark.parametrize(
    ("function", "says"), [("mixing", "column 'total'"), ("crossing", "rows"), ("random", "total")]
)
def test_a_function_that_mixes_batches_is_caught(run: Compute, function: str, says: str) -> None:
    with pytest.raises(FeatureError, match="mixes batches, or is not deterministic") as caught:
        run(function)
    assert says in str(caught.value)
    assert (
        "tuesday" in str(caught.value.where)
        or "wednesday" in str(caught.value.where)
        or "monday" in str(caught.value.where)
    )


def test_one_batch_cannot_mix(run: Compute) -> None:
    assert run("mixing", {"monday": MONDAY})["monday"]["total"].to_pylist() == [25.0, 25.0, 7.0]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("without_batch", "lost the column `batch`"),
        ("without_label", "missing good"),
        ("without_feature", "missing total"),
        ("with_more", "weekday"),
        ("with_two", "two columns of one name"),
        ("with_date", "column 'total' (numeric)"),
        ("with_float_category", "column 'shop' (categorical)"),
        ("with_text_label", "column 'good' (the label)"),
        ("of_another_batch", "'invented'"),
        ("of_no_batch", "null"),
        ("no_frame", "must return a Spark DataFrame"),
        ("misspelt", "ammount"),
    ],
)
def test_what_a_function_returns_is_checked(run: Compute, function: str, says: str) -> None:
    with pytest.raises(FeatureError) as caught:
        run(function)
    assert says in str(caught.value)
    assert "feature_functions" in str(caught.value.where)


def test_a_value_that_breaks_the_function_is_no_fault_of_the_declaration(run: Compute) -> None:
    with pytest.raises(PlatformError, match="Spark could not compute the features") as caught:
        run("dividing", {"a": MONDAY, "b": sales((1, 1, 0.0))})
    assert not isinstance(caught.value, FeatureError)
    assert "DIVIDE_BY_ZERO" in str(caught.value)


def test_a_batch_without_its_source_is_named(spark: SparkSession, tmp_path: Path) -> None:
    files: dict[str, dict[str, Path]] = {**stored(tmp_path, WEEK), "thursday": {}}
    with pytest.raises(FeatureError, match="thursday"):
        compute(spark, declare("right"), files, history={}, references={}, out=tmp_path / "out")


def test_a_source_cannot_have_the_platforms_column(run: Compute) -> None:
    with pytest.raises(FeatureError, match="column that the platform adds"):
        run("right", {"a": MONDAY.append_column("batch", pa.array(["x"] * 3))})


def test_times_that_spark_cannot_read_are_refused(run: Compute) -> None:
    times = pa.array([0, 1, 2], pa.timestamp("ns", "UTC"))
    with pytest.raises(FeatureError, match="microseconds"):
        run("right", {"a": MONDAY.append_column("at", times)})


@pytest.mark.parametrize("writer", ["pyarrow", "polars"])
def test_columns_have_the_types_that_spark_finds_in_the_files(spark: SparkSession, tmp_path: Path, writer: str) -> None:
    types = [pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint32(), pa.float32()]
    types += [pa.float64(), pa.string(), pa.large_string(), pa.binary(), pa.date32(), pa.decimal128(10, 2)]
    types += [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ms", "America/New_York"), pa.duration("us")]
    types += [pa.list_(pa.int64()), pa.dictionary(pa.int32(), pa.string())]
    for number, type_ in enumerate(types):
        folder = tmp_path / str(number)
        folder.mkdir()
        table = pa.table({"one": pa.nulls(2, type_), "two": pa.nulls(2, pa.int64())})
        if writer == "polars":
            pl.DataFrame(table).write_parquet(folder / "0.parquet")
        else:
            pq.write_table(table, folder / "0.parquet")
        frame = read_references(spark, {"feed": folder})["feed"]
        assert frame.schema == spark.read.parquet(str(folder)).schema, type_
        assert frame.count() == 2


def test_the_session_keeps_its_own_settings(spark: SparkSession, run: Compute) -> None:
    with sql(spark, {"spark.sql.session.timeZone": "Asia/Tokyo", "spark.sql.ansi.enabled": "false"}):
        before = {name: spark.conf.get(name, None) for name in SQL_SETTINGS}
        run("right")
        assert {name: spark.conf.get(name, None) for name in SQL_SETTINGS} == before


def test_only_features_are_left_behind(run: Compute, tmp_path: Path) -> None:
    run("right")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features"]
    with pytest.raises(FeatureError):
        run("without_batch", out=tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_multiclass_label_stays_what_it_says(spark: SparkSession, tmp_path: Path) -> None:
    pipeline = replace(declare("with_text_label"), task="multiclass")
    found = compute(spark, pipeline, stored(tmp_path, WEEK), history={}, references={}, out=tmp_path / "out")
    assert read(found)["monday"]["good"].to_pylist() == ["yes"] * 3


def test_stopping_ends_the_jvm_and_another_session_can_start(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from pyspark import SparkContext
from ml_platform.stages.spark import builder, spark_config, stop
for _ in range(2):
    session = builder(spark_config(master="local[1]", memory="512m", scratch=Path({str(tmp_path)!r}))).getOrCreate()
    process = SparkContext._gateway.proc
    assert session.range(3).count() == 3 and process.poll() is None
    stop(session)
    assert process.poll() is not None
    print("gone")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, timeout=900)
    assert done.stdout.split() == ["gone", "gone"], done.stderr[-2000:]
