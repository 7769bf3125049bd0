"""What lands badly stops nobody else, loses nothing, and is named: the gate's stages on the flights, without Spark."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.settings import Settings
from ml_platform.stages.opening import landing_of, store_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform_tests.conftest import land_samples

DAYS = ["2013-01-01", "2013-01-02", "2013-01-03"]
BAD = "2013-01-02"
STAGES = ["raw_batch", "validated_batch", "planes"]


@pytest.fixture
def landed(settings: Settings) -> Path:
    """The pipeline's landing folder, with three good days."""
    land_samples(PIPELINE, landing_of(settings), keep=DAYS.__contains__)
    return Path(settings.landing) / PIPELINE.name


def run(settings: Settings) -> RunSummary:
    return run_pipeline(PIPELINE, settings, Request(select=STAGES))


def test_a_batch_without_one_of_its_sources_waits(settings: Settings, landed: Path) -> None:
    weather = landed / "weather" / f"{BAD}.parquet"
    kept = weather.read_bytes()
    weather.unlink()
    summary = run(settings)
    assert summary.accepted == 2
    assert list(summary.incomplete) == [BAD]
    assert "weather has not landed" in summary.incomplete[BAD]
    assert f"weather/{BAD}.parquet" in summary.incomplete[BAD], "it says which file is missing"
    weather.write_bytes(kept)
    assert run(settings).accepted == 3


def test_a_damaged_memory_of_what_landed_is_begun_anew(
    settings: Settings, landed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(settings).accepted == 3
    memory = settings.cache / "landing_digests.sqlite"
    memory.write_bytes(b"damaged" * 1000)
    assert run(settings).accepted == 3
    assert "landed files are read again" in caplog.text
    caplog.clear()
    assert run(settings).accepted == 3
    assert memory.stat().st_size
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"not parquet at all", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_an_unreadable_file_is_rejected_and_kept(settings: Settings, landed: Path, content: bytes) -> None:
    (landed / "flights" / f"{BAD}.parquet").write_bytes(content)
    summary = run(settings)
    assert summary.accepted == 2
    assert list(summary.rejected) == [BAD]
    assert "readable" in summary.rejected[BAD]
    raw = next(m for m in store_of(settings).artifacts(PIPELINE.name, "raw_batch") if m.batch == BAD)
    assert store_of(settings).read_bytes(raw.file("flights.parquet")) == content, "the bytes that came are kept"


def test_a_truncated_file_is_rejected(settings: Settings, landed: Path) -> None:
    path = landed / "flights" / f"{BAD}.parquet"
    path.write_bytes(path.read_bytes()[:-2000])
    assert list(run(settings).rejected) == [BAD]


def test_an_empty_file_is_not_taken(settings: Settings, landed: Path) -> None:
    (landed / "flights" / f"{BAD}.parquet").write_bytes(b"")
    summary = run(settings)
    assert summary.accepted == 2
    assert "empty" in summary.incomplete[BAD]


def test_a_missing_column_and_a_wrong_type_are_named(settings: Settings, landed: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, second = (landed / "flights" / f"{day}.parquet" for day in DAYS[:2])
    pq.write_table(pq.read_table(first).drop_columns(["carrier"]), first)
    table = pq.read_table(second)
    place = table.schema.get_field_index("distance")
    pq.write_table(table.set_column(place, "distance", pa.array(["far"] * len(table))), second)
    summary = run(settings)
    assert summary.accepted == 1
    assert "carrier" in summary.rejected[DAYS[0]]
    assert "distance" in summary.rejected[DAYS[1]]


def test_a_file_with_a_strange_name_is_left_alone(settings: Settings, landed: Path) -> None:
    (landed / "flights" / "2013-13-45.parquet").write_bytes(b"x")
    (landed / "flights" / ".2013-01-04.parquet").write_bytes(b"x")
    summary = run(settings)
    assert (summary.accepted, summary.rejected, summary.incomplete) == (3, {}, {})


def test_a_batch_that_lands_again_otherwise_is_checked_again(settings: Settings, landed: Path) -> None:
    import pyarrow.parquet as pq

    run(settings)
    path = landed / "flights" / f"{BAD}.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=100)
    same = {stage.name: stage for stage in run(settings).stages}
    assert same["raw_batch"].built == 1, "other bytes"
    assert same["validated_batch"].built == 1
    store = store_of(settings)
    versions = {m.data_version for m in store.artifacts(PIPELINE.name, "validated_batch") if m.batch == BAD}
    assert len(versions) == 1, "the same rows have the same data version: nothing below runs"
