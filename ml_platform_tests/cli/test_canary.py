"""`ml-platform canary`: the whole chain on little data, elsewhere; it dies where a stage does, and touches nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.canary.sample import LEAST_ROWS, land_sample
from ml_platform.errors import LandingError
from ml_platform.pipeline import MetricGate, Pipeline, Split
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE as FLIGHTS
from ml_platform.settings import Settings
from ml_platform.stages.opening import landing_of
from ml_platform_tests.cli.conftest import Command
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TINY_PIPELINE = "ml_platform_tests.tiny_pipeline.pipeline.PIPELINE"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    return fresh_settings(tmp_path / "elsewhere")


def landed(settings: Settings) -> dict[str, bytes]:
    """Every landed file by its path in the landing place."""
    folder = Path(settings.landing)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The sample


def test_the_sample_is_one_percent_from_both_windows_and_always_the_same(
    settings: Settings, elsewhere: Settings
) -> None:
    sample = land_sample(FLIGHTS, settings, landing_of(elsewhere))
    assert sample.train == ("2013-01-01", "2013-02-20", "2013-04-11", "2013-05-31")
    assert sample.holdout == ("2013-06-01", "2013-06-30")
    assert 0.005 < sample.share < 0.02
    files = landed(elsewhere)
    assert {path for path in files if "flights/2013" in path} == {
        f"nyc_flights/flights/{day}.parquet" for day in (*sample.train, *sample.holdout)
    }
    assert "nyc_flights/references/planes.parquet" in files
    again = fresh_settings(elsewhere.home.parent / "again")
    land_sample(FLIGHTS, settings, landing_of(again))
    assert landed(again) == files


def test_what_has_landed_comes_before_sample_data(tiny: Pipeline, settings: Settings, elsewhere: Settings) -> None:
    landing = landing_of(settings)
    for lot in range(30):
        landing.put(tiny, "readings", f"own-{lot:02d}", readings(lot), "csv")
    before = landed(settings)
    sample = land_sample(tiny, settings, landing_of(elsewhere))
    assert "what has landed" in sample.origin
    assert (sample.batches, sample.taken) == (30, 6)
    assert sample.holdout == ("own-28", "own-29")
    assert all(before[path] == data for path, data in landed(elsewhere).items()), "small files stay as they are"
    assert landed(settings) == before


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_of_large_batches_rows_are_taken_evenly(
    tiny: Pipeline, settings: Settings, elsewhere: Settings, format_: str
) -> None:
    pipeline = replace(tiny, sources=(replace(tiny.sources[0], format=format_),))  # type: ignore[arg-type]
    landing = landing_of(settings)
    for lot in range(6):
        table = readings(lot, rows=20_000)
        machine = pa.array(['a "quoted",\nname' if row % 2 else "saw" for row in range(20_000)])
        table = table.set_column(table.schema.get_field_index("machine"), "machine", machine)
        landing.put(pipeline, "readings", f"lot-{lot}", table, format_)
    sample = land_sample(pipeline, settings, landing_of(elsewhere), 0.1)
    assert sample.rows == {"readings": 6 * 2_000}
    assert sample.of_rows == {"readings": 6 * 20_000}
    path = Path(elsewhere.landing) / "tiny/readings" / f"lot-3.{format_}"
    if format_ == "csv":
        import polars as pl

        kept = pl.read_csv(path)["reading"].to_list()
    else:
        kept = pq.read_table(path)["reading"].to_pylist()
    assert kept == [3000 + row for row in range(9, 20_000, 10)]
    assert land_sample(pipeline, settings, landing_of(elsewhere), 0.001).rows == {"readings": 6 * LEAST_ROWS}


def test_a_window_without_batches_is_said(tiny: Pipeline, settings: Settings, elsewhere: Settings) -> None:
    late = replace(tiny, split=Split.between(train=("lot-01", "lot-06"), holdout=("lot-20", "lot-30")))
    with pytest.raises(LandingError, match="holdout"):
        land_sample(late, settings, landing_of(elsewhere))


def test_rejected_and_withdrawn_batches_are_left_out(
    command: Command, home: Path, tiny: Pipeline, elsewhere: Settings
) -> None:
    own = fresh_settings(home)
    landing = landing_of(own)
    for lot in range(1, 10):
        good = readings(lot)
        bad = good.set_column(good.schema.get_field_index("load"), "load", [[7.5] * good.num_rows])
        landing.put(tiny, "readings", f"lot-{lot}", bad if lot == 9 else good, "csv")
    split = Split.between(train=("lot-1", "lot-6"), holdout=("lot-7", "lot-9"))
    assert land_sample(replace(tiny, split=split), own, landing_of(elsewhere)).holdout == ("lot-7", "lot-9")
    assert command("run", "tiny", "--select", "raw_batch,validated_batch").code == 0
    assert command("withdraw", "tiny", "lot-1", "--reason", "asked to", "--by", "Ada").code == 0

    other = fresh_settings(elsewhere.home.parent / "other")
    sample = land_sample(replace(tiny, split=split), own, landing_of(other))
    assert (sample.batches, sample.left_out) == (7, 2)
    assert (sample.train[0], sample.holdout) == ("lot-2", ("lot-7", "lot-8"))
    assert not [path for path in landed(other) if "lot-1" in path or "lot-9" in path]

    shared = fresh_settings(home.parent / "shared", store=own.store, landing=own.landing)
    assert land_sample(replace(tiny, split=split), shared, landing_of(other)) == sample, "without a Dagster of its own"
    only_bad = Split.between(train=("lot-1", "lot-6"), holdout=("lot-9", "lot-9"))
    with pytest.raises(LandingError, match="2 more were rejected or withdrawn"):
        land_sample(replace(tiny, split=only_bad), own, landing_of(other))


# The run


@pytest.mark.slow
def test_every_stage_completes_in_a_fresh_folder_and_nothing_is_left(
    command: Command, home: Path, tiny: Pipeline, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TINY_PIPELINE, replace(tiny, gates=(MetricGate(metric="accuracy", at_least=1.0),)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    answer = command("canary", "tiny")
    assert answer.code == 0, answer.out + answer.err
    for stage in ("raw_batch", "validated_batch", "features", "training_set", "trained_model", "registered_model"):
        assert stage in answer.out
    assert "6 of 6 batches" in answer.out
    assert "Told, not judged: accuracy >= 1.0" in answer.out, "a floor that it misses holds nothing back"
    assert "Every stage completed" in answer.out
    assert not home.exists()
    assert not list((tmp_path / "temporary").glob("ml-platform-canary-*"))


def test_a_stage_that_fails_kills_it(
    command: Command, home: Path, tiny: Pipeline, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(tiny.features, function="ml_platform_tests.cli.test_canary:state_of_nothing")
    monkeypatch.setattr(TINY_PIPELINE, replace(tiny, features=broken))
    answer = command("canary", "tiny")
    assert answer.code == 1
    assert "no such readings" in answer.out
    assert "registered_model did not complete" in answer.out
    assert "The canary died" in answer.out


def test_without_data_it_cannot_run(command: Command, tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TINY_PIPELINE, replace(tiny, sample_data=None))
    answer = command("canary", "tiny")
    assert answer.code == 2
    assert "There is no data for a canary." in answer.err


def state_of_nothing(spark: object, frames: object, references: object) -> None:
    """A feature function that names the label, `state`, and never gets so far."""
    raise ValueError("no such readings")
