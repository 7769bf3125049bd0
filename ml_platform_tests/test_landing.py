"""A landed file is taken whole or not at all, and whatever is wrong with it is said."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import LandingError
from ml_platform.landing import LandedFile, Landing
from ml_platform.pipeline import (
    DailyBatches,
    Features,
    Pipeline,
    Recipe,
    Reference,
    Source,
    Split,
)
from ml_platform_tests.store.conftest import local_place, place, s3_endpoint, s3_options, s3_place, s3_url

# The places are fixtures of the store's tests; a name in this module makes them known here too.
__all__ = ["local_place", "place", "s3_endpoint", "s3_options", "s3_place", "s3_url"]

TABLE = pa.table({"x": [1, 2, 3], "y": ["a", None, "c"]})
SCHEMA = "ml_platform.pipelines.nyc_flights.schema:Flights"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline(
        name="flights",
        description="A pipeline to land for.",
        batches=DailyBatches(start="2013-01-01", end="2013-01-31"),
        sources=(Source(name="flown", schema=SCHEMA), Source(name="weather", schema=SCHEMA, format="csv")),
        references=(Reference(name="planes", schema=SCHEMA), Reference(name="airports", schema=SCHEMA, format="csv")),
        features=Features(function="ml_platform_tests.test_landing:features", numeric=("x",)),
        label="delayed",
        task="binary",
        recipe=Recipe(model="ml_platform_tests.test_landing:features"),
        split=Split.rolling(holdout=1),
    )


def features() -> str:
    return "delayed"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "landing place"


@pytest.fixture
def landing(root: Path) -> Landing:
    return Landing(str(root), settle_seconds=0.2)


def lay(root: Path, name: str, data: bytes = b"x\n1\n", age: float = 60) -> Path:
    """Put a file there as somebody else would, `age` seconds ago."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


def only(landing: Landing, pipeline: Pipeline) -> LandedFile:
    (file,) = landing.files(pipeline, "flown", "parquet").values()
    return file


def test_what_is_put_is_listed_and_taken(place: Any, pipeline: Pipeline, tmp_path: Path) -> None:
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    pq.write_table(TABLE, tmp_path / "given.parquet")
    landing.put(pipeline, "flown", "2013-01-02", TABLE, "parquet")
    url = landing.put(pipeline, "flown", "2013-01-01", tmp_path / "given.parquet", "parquet")
    landing.put(pipeline, "weather", "2013-01-01", b"x,y\n1,a\n", "csv")
    landing.put(pipeline, "weather", "2013-01-02", TABLE, "csv")
    landing.put(pipeline, "references", "planes", TABLE, "parquet")
    landing.put(pipeline, "references", "airports", TABLE, "csv")
    assert url == f"{place.url}/flights/flown/2013-01-01.parquet"

    flown = landing.files(pipeline, "flown", "parquet")
    assert list(flown) == ["2013-01-01", "2013-01-02"]
    assert flown.refused == ()
    assert abs(flown["2013-01-01"].modified - time.time()) < 60
    assert (
        landing.snapshot(flown["2013-01-01"], tmp_path / "taken")
        == hashlib.sha256((tmp_path / "given.parquet").read_bytes()).hexdigest()
    )
    assert pq.read_table(tmp_path / "taken") == TABLE
    assert list(landing.files(pipeline, "references", "parquet")) == ["planes"]
    assert list(landing.files(pipeline, "references", "csv")) == ["airports"]
    assert landing.files(pipeline, "references", "csv").refused == ()
    weather = landing.files("flights", "weather", "csv")
    landing.snapshot(weather["2013-01-02"], tmp_path / "weather")
    assert pyarrow.csv.read_csv(tmp_path / "weather").num_rows == 3


def test_putting_again_replaces(place: Any, pipeline: Pipeline, tmp_path: Path) -> None:
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    landing.put(pipeline, "weather", "2013-01-01", b"x\n1\n", "csv")
    before = landing.files(pipeline, "weather", "csv")["2013-01-01"]
    landing.put(pipeline, "weather", "2013-01-01", b"x\n2\n", "csv")
    after = landing.files(pipeline, "weather", "csv")["2013-01-01"]
    assert after.version != before.version
    with pytest.raises(LandingError, match="changed since it was listed"):
        landing.snapshot(before, tmp_path / "taken")
    landing.snapshot(after, tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == b"x\n2\n"
    assert place.names() == ["flights/weather/2013-01-01.csv"]


def test_nothing_has_landed_yet(place: Any, pipeline: Pipeline) -> None:
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    assert landing.files(pipeline, "flown", "parquet") == {}


def test_a_vanished_file(place: Any, pipeline: Pipeline, tmp_path: Path) -> None:
    landing = Landing(place.url, storage_options=place.options, settle_seconds=0)
    landing.put(pipeline, "flown", "2013-01-01", TABLE, "parquet")
    file = only(landing, pipeline)
    place.delete("flights/flown/2013-01-01.parquet")
    with pytest.raises(LandingError, match=r"vanished[\s\S]*2013-01-01"):
        landing.snapshot(file, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_what_is_ignored_and_what_is_refused(
    root: Path, landing: Landing, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (".hidden.parquet", "2013-01-03.parquet.tmp", "2013-01-03.parquet.part", "deep/2013-01-04.parquet"):
        lay(root, f"flights/flown/{name}")
    refused = {
        "2013-01-01.csv": "must end in .parquet",
        "2013-02-01.parquet": "one day from 2013-01-01 to 2013-01-31",
        "2013-1-1.parquet": "one day from",
        "..parquet": "",
        "-rf.parquet": "a name is",
        "a\nb.parquet": "a name is",
        "2013-01-01.PARQUET": "must end in .parquet",
        "no suffix": "a name is",
    }
    for name in refused:
        lay(root, f"flights/flown/{name}")
    lay(root, "flights/flown/2013-01-01.parquet")
    with caplog.at_level(logging.WARNING):
        found = landing.files(pipeline, "flown", "parquet")
    assert list(found) == ["2013-01-01"]
    reasons = {file.url.rpartition("/flown/")[2]: file.reason for file in found.refused}
    assert set(reasons) == set(refused) - {"..parquet"}, "a dot-file is ignored"
    for name, reason in reasons.items():
        assert refused[name] in reason
        assert any(repr(name)[1:-1] in message for message in caplog.messages)


@pytest.mark.parametrize("name", ["../2013-01-01", "/2013-01-01", "a/b", "", ".", "..", "2013-01-32", "2014-01-01"])
def test_a_name_that_is_not_accepted_is_not_put(root: Path, landing: Landing, pipeline: Pipeline, name: str) -> None:
    with pytest.raises(LandingError, match="cannot land under this name"):
        landing.put(pipeline, "flown", name, TABLE, "parquet")
    assert not root.exists()


@pytest.mark.parametrize("feed", ["../flown", "/flown", "", "nothing", "references"])
def test_a_feed_that_is_not_declared_is_not_put(root: Path, landing: Landing, pipeline: Pipeline, feed: str) -> None:
    with pytest.raises(LandingError, match="cannot land under this name"):
        landing.put(pipeline, feed, "2013-01-01", TABLE, "parquet")
    with pytest.raises(LandingError, match="cannot land under this name"):
        landing.put("../flights", "flown", "2013-01-01", TABLE, "parquet")
    assert not root.exists()


def test_unreadable_data_are_not_put(root: Path, landing: Landing, pipeline: Pipeline, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").touch()
    cases: list[tuple[Any, str]] = [
        (tmp_path / "half.parquet", "Not a readable parquet"),
        (whole[:-4], "Not a readable parquet"),
        (tmp_path / "empty.parquet", "empty"),
        (b"", "empty"),
        (tmp_path / "absent.parquet", "no such file"),
        (tmp_path, "Not a readable parquet"),
        (pa.table({}), "without columns"),
    ]
    for data, says in cases:
        with pytest.raises(LandingError, match=says):
            landing.put(pipeline, "flown", "2013-01-01", data, "parquet")
    assert not root.exists()


def test_a_table_that_does_not_fit_the_format_is_not_put(place: Any, pipeline: Pipeline) -> None:
    landing = Landing(place.url, storage_options=place.options)
    lists = pa.table({"x": list(range(100_000)), "y": [[1]] * 100_000})
    with pytest.raises(LandingError, match="cannot be written as csv"):
        landing.put(pipeline, "weather", "2013-01-01", lists, "csv")
    assert place.names() == []
    assert landing.put(pipeline, "weather", "2013-01-01", b"x,y\n", "csv"), "no rows is not unreadable"


def test_an_empty_file_is_not_taken(root: Path, landing: Landing, pipeline: Pipeline, tmp_path: Path) -> None:
    lay(root, "flights/flown/2013-01-01.parquet", b"")
    with pytest.raises(LandingError, match="empty"):
        landing.snapshot(only(landing, pipeline), tmp_path / "taken")


@pytest.fixture
def writer(root: Path) -> Iterator[Path]:
    """A file to which somebody writes all the time."""
    path = lay(root, "flights/flown/2013-01-01.parquet", b"begun", age=0)
    stop = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.wait(0.02):
                file.write(b"more")

    thread = threading.Thread(target=write)
    thread.start()
    yield path
    stop.set()
    thread.join()


def test_a_growing_file_is_not_taken(root: Path, writer: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    landing = Landing(str(root), settle_seconds=1.0)  # a writer may be kept from the processor for a while
    with pytest.raises(LandingError, match="still being written"):
        landing.snapshot(only(landing, pipeline), tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_a_file_that_grows_while_it_is_copied_is_not_taken(
    root: Path, landing: Landing, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lay(root, "flights/flown/2013-01-01.parquet", b"1" * 3_000_000)
    file = only(landing, pipeline)
    opened = Landing._open

    def grow(self: Landing, listed: LandedFile) -> Any:
        with path.open("ab") as appended:
            appended.write(b"more")
        return opened(self, listed)

    monkeypatch.setattr(Landing, "_open", grow)
    with pytest.raises(LandingError, match="while it was copied"):
        landing.snapshot(file, tmp_path / "taken")
    assert not (tmp_path / "taken").exists()


def test_a_new_file_is_taken_once_it_has_kept_still(
    root: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = time.sleep
    here = threading.get_ident()  # other threads, such as a server of an earlier test, sleep too

    def noted(seconds: float) -> None:
        if threading.get_ident() == here:
            slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", noted)
    landing = Landing(root, settle_seconds=0.3)
    for day in range(1, 6):
        lay(root, f"flights/flown/2013-01-0{day}.parquet", age=0)
    for name, file in landing.files(pipeline, "flown", "parquet").items():
        landing.snapshot(file, tmp_path / name)
    assert sum(slept) < 0.6, "files that landed together are waited for once"
    assert slept
    slept.clear()
    lay(root, "flights/flown/2013-01-01.parquet", age=-3600)  # a clock that runs ahead
    landing.snapshot(landing.files(pipeline, "flown", "parquet")["2013-01-01"], tmp_path / "ahead")
    assert sum(slept) <= 0.3


def test_a_link_out_of_the_landing_place_is_refused(
    root: Path, landing: Landing, pipeline: Pipeline, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.parquet"
    pq.write_table(TABLE, secret)
    inside = lay(root, "elsewhere/real.parquet", secret.read_bytes())
    (root / "flights/flown").mkdir(parents=True)
    (root / "flights/flown/2013-01-01.parquet").symlink_to(secret)
    (root / "flights/flown/2013-01-02.parquet").symlink_to(inside)
    found = landing.files(pipeline, "flown", "parquet")
    assert list(found) == ["2013-01-02"]
    assert "leaves the landing place" in found.refused[0].reason
    (root / "flights/flown/2013-01-02.parquet").unlink()
    (root / "flights/flown/2013-01-02.parquet").symlink_to(secret)
    with pytest.raises(LandingError, match="link out of"):
        landing.snapshot(found["2013-01-02"], tmp_path / "taken")
    (root / "flights/weather").symlink_to(tmp_path)
    with pytest.raises(LandingError, match="link out of"):
        landing.files(pipeline, "weather", "csv")


def test_a_place_that_cannot_be_reached(pipeline: Pipeline, tmp_path: Path, s3_endpoint: str) -> None:
    landing = Landing("s3://bucket/x", storage_options={"s3": {"endpoint_url": "http://127.0.0.1:9"}})
    with pytest.raises(LandingError, match="endpoint is up"):
        landing.files(pipeline, "flown", "parquet")
    with pytest.raises(LandingError, match="endpoint is up"):
        landing.put(pipeline, "flown", "2013-01-01", TABLE, "parquet")
    with pytest.raises(LandingError, match="bucket or folder exists"):
        Landing("s3://no-such-bucket/x", storage_options={"s3": {"endpoint_url": s3_endpoint}}).files(
            pipeline, "flown", "parquet"
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(LandingError, match="fix:"):
        Landing(tmp_path / "file").put(pipeline, "flown", "2013-01-01", TABLE, "parquet")


def test_many_files_are_one_listing(root: Path, landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "flights/flown"
    folder.mkdir(parents=True)
    for number in range(3000):
        (folder / f"b{number}.csv").write_bytes(b"1")
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    assert len(landing.files("flights", "flown", "csv")) == 3000
    assert len(listed) == 1
