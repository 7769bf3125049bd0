"""When a landed file is complete is what its marker or its checksum says; and only what is new is listed."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import LandingError
from ml_platform.landing import Landing
from ml_platform.pipeline import NamedBatches, Pipeline
from ml_platform_tests.store.conftest import Place, local_place, place, s3_endpoint, s3_options, s3_place, s3_url
from ml_platform_tests.test_landing import TABLE, pipeline

# Fixtures of other tests; a name in this module makes them known here too.
__all__ = ["local_place", "pipeline", "place", "s3_endpoint", "s3_options", "s3_place", "s3_url"]


def vouching(pipeline: Pipeline, complete: Any) -> Pipeline:
    flown, weather = pipeline.sources
    return replace(pipeline, sources=(replace(flown, complete=complete), weather))


def test_a_file_with_a_marker_is_there_once_the_marker_is_and_no_longer_when_it_is_written_again(
    pipeline: Pipeline, place: Place
) -> None:
    marked = vouching(pipeline, "marker")
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    name = "flights/flown/2013-01-01.parquet"
    place.write(name, b"half of it")
    assert landing.files(marked, "flown", "parquet") == {}
    place.write(name + ".done", b"")
    listed = landing.files(marked, "flown", "parquet")
    assert set(listed) == {"2013-01-01"}
    assert listed.refused == ()
    time.sleep(1.1)  # S3 tells time in seconds
    place.write(name, b"half of what is to replace it")
    assert landing.files(marked, "flown", "parquet") == {}


def test_a_file_with_a_checksum_is_taken_only_with_those_bytes(
    pipeline: Pipeline, place: Place, tmp_path: Path
) -> None:
    summed = vouching(pipeline, "checksum")
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    name = "flights/flown/2013-01-01.parquet"
    place.write(name, b"the file")
    assert landing.files(summed, "flown", "parquet") == {}
    place.write(name + ".sha256", hashlib.sha256(b"another").hexdigest().encode() + b"  2013-01-01.parquet\n")
    listed = landing.files(summed, "flown", "parquet")["2013-01-01"]
    with pytest.raises(LandingError, match="not the one that its checksum was made of"):
        landing.snapshot(listed, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    digest = hashlib.sha256(b"the file").hexdigest()
    place.write(name + ".sha256", f"{digest.upper()} *2013-01-01.parquet\n".encode())
    assert landing.snapshot(landing.files(summed, "flown", "parquet")["2013-01-01"], tmp_path / "copy") == digest


@pytest.mark.parametrize("complete", ["marker", "checksum"])
def test_what_the_platform_lands_it_also_says_is_complete(
    pipeline: Pipeline, place: Place, tmp_path: Path, complete: Any
) -> None:
    declared = vouching(pipeline, complete)
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    landing.put(declared, "flown", "2013-01-01", TABLE, "parquet")
    (listed,) = landing.files(declared, "flown", "parquet").values()
    landing.snapshot(listed, tmp_path / "copy")


def test_only_names_after_a_mark_are_listed(pipeline: Pipeline, place: Place) -> None:
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    for day in range(1, 6):
        place.write(f"flights/flown/2013-01-0{day}.parquet", b"x")
    assert list(landing.files(pipeline, "flown", "parquet", after="2013-01-03")) == ["2013-01-04", "2013-01-05"]
    assert list(landing.files(pipeline, "flown", "parquet", after="2013-01-05")) == []
    assert list(landing.files(pipeline, "weather", "csv", after="2013-01-05")) == []


def test_a_long_listing_after_a_mark_has_all_its_pages(s3_place: Place, pipeline: Pipeline) -> None:
    named = replace(pipeline, batches=NamedBatches())
    landing = Landing(s3_place.url, storage_options=s3_place.options, settle_seconds=0)
    for number in range(1102):
        s3_place.write(f"flights/flown/b{number:05d}.parquet", b"x")
    assert len(landing.files(named, "flown", "parquet", after="b00000")) == 1101
