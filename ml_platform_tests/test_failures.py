"""What is tried again and what is not, by the errors that the platform's parts really raise."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.errors import LandingError, PlatformError, RegistryError, SetupError, StoreError
from ml_platform.failures import classify
from ml_platform.landing import Landing
from ml_platform.launch.failure import explain
from ml_platform.registry.connection import Connection
from ml_platform.stages.execute import short
from ml_platform.store import Store

NOBODY = "http://127.0.0.1:9"
"""Nothing listens there."""


def raised(function: object) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        function()  # type: ignore[operator]
    return caught.value


def test_a_landing_place_a_store_and_a_registry_that_are_away_come_back(tmp_path: Path) -> None:
    options = {"s3": {"endpoint_url": NOBODY, "key": "k", "secret": "s"}}
    landing = Landing("s3://bucket/landing", storage_options=options)
    store = Store("s3://bucket/store", cache=tmp_path, storage_options=options)
    for error, kind in (
        (raised(lambda: landing.files("tiny", "readings", "csv")), LandingError),
        (raised(lambda: list(store.artifacts("tiny", "features"))), StoreError),
        (raised(lambda: Connection(NOBODY, patience=0).experiment("tiny")), RegistryError),
    ):
        assert isinstance(error, kind)
        assert classify(error) == "passing", error


def test_a_file_that_is_still_written_will_be_complete_and_an_empty_one_will_not(tmp_path: Path) -> None:
    landing = Landing(tmp_path, settle_seconds=0)
    path = tmp_path / "tiny" / "readings" / "lot-01.csv"
    path.parent.mkdir(parents=True)
    path.write_text("a\n1\n")
    listed = landing.files("tiny", "readings", "csv")["lot-01"]
    path.write_text("a\n1\n2\n")
    assert classify(raised(lambda: landing.snapshot(listed, tmp_path / "copy"))) == "passing"
    path.write_text("")
    empty = landing.files("tiny", "readings", "csv")["lot-01"]
    assert classify(raised(lambda: landing.snapshot(empty, tmp_path / "copy"))) == "permanent"


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [(-9, "passing"), (137, "passing"), (143, "passing"), (1, "permanent"), (-11, "permanent")],
)
def test_a_training_job_that_was_killed_is_tried_again(tmp_path: Path, exit_code: int, expected: str) -> None:
    assert classify(explain("tiny", tmp_path / "none", tmp_path / "none", exit_code)) == expected


def test_a_process_that_was_killed_is_told_from_one_that_failed() -> None:
    kill_itself = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    killed = raised(lambda: subprocess.run([sys.executable, "-c", kill_itself], check=True))
    failed = raised(lambda: subprocess.run([sys.executable, "-c", "1 / 0"], check=True, capture_output=True))
    assert (classify(killed), classify(failed)) == ("passing", "permanent")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "passing"),
        (OSError(errno.ENOSPC, "No space left on device"), "passing"),
        (OSError(errno.EMFILE, "Too many open files"), "passing"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "permanent"),
        (PermissionError(errno.EACCES, "Permission denied"), "permanent"),
        (sqlite3.OperationalError("database is locked"), "passing"),
        (sqlite3.OperationalError("no such column: x"), "permanent"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "passing"),
        (ValueError("negative"), "permanent"),
        (KeyError("column"), "permanent"),
        (SetupError("Java is missing."), "permanent"),
    ],
)
def test_by_its_kind(error: BaseException, expected: str) -> None:
    assert classify(error) == expected


def test_what_an_error_was_raised_from_counts_and_what_was_only_being_handled_too() -> None:
    def wrapped() -> None:
        try:
            raise ConnectionResetError
        except ConnectionResetError as reason:
            raise RuntimeError("step failed") from reason

    def on_the_way() -> None:
        try:
            raise ConnectionResetError
        except ConnectionResetError:
            raise ValueError("no answer") from None

    assert classify(raised(wrapped)) == "passing"
    assert classify(raised(on_the_way)) == "permanent"
    assert classify(PlatformError("x", passing=True)) == "passing"


def test_a_cause_that_circles_ends() -> None:
    error = ValueError()
    error.__cause__ = error
    assert classify(error) == "permanent"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="nothing here is always full")
def test_a_disk_that_fills_up_under_a_stage_says_what_to_do() -> None:
    error = raised(lambda: Path("/dev/full").write_text("all that a stage writes"))
    assert short(error).startswith("A disk is full.")
    assert "ml-platform gc" in short(error)
    assert ".py" not in short(error), "where it was noticed helps nobody"
