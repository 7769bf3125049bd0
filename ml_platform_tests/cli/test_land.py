"""`ml-platform land`: files come in whole, stay when they are there already, and bad ones touch nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform_tests.cli.conftest import Command


def landed(home: Path) -> dict[str, tuple[int, int]]:
    """Every file in the landing place, with its inode and time."""
    files = (path for path in (home / "landing").rglob("*") if path.is_file())
    return {str(path.relative_to(home / "landing")): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def flights(tmp_path: Path) -> Path:
    path = tmp_path / "day.parquet"
    pq.write_table(pa.table({"carrier": ["UA", "DL"]}), path)
    return path


def test_landing_twice_leaves_the_files_as_they_are(command: Command, home: Path) -> None:
    assert command("land", "tiny").code == 0
    before = landed(home)
    assert before
    again = command("land", "tiny")
    assert f"0 files landed, {len(before)} were there already" in again.out
    assert landed(home) == before


def test_a_file_that_differs_is_landed_again_and_only_that(command: Command, home: Path) -> None:
    command("land", "tiny")
    before = landed(home)
    changed = min(before)
    path = home / "landing" / changed
    text = path.read_bytes()
    path.write_bytes(text + b"more\n")
    assert "1 files landed" in command("land", "tiny").out
    assert path.read_bytes() == text
    assert {name: mark for name, mark in landed(home).items() if name != changed} == {
        name: mark for name, mark in before.items() if name != changed
    }


def test_a_file_of_ones_own_lands_under_its_batch(command: Command, home: Path, flights: Path) -> None:
    answer = command("land", "nyc_flights", flights, "--source", "flights", "--batch", "2013-06-07")
    assert answer.code == 0
    target = home / "landing/nyc_flights/flights/2013-06-07.parquet"
    assert target.read_bytes() == flights.read_bytes()
    assert str(target) in answer.out


def test_a_reference_lands_without_a_batch(command: Command, home: Path, flights: Path) -> None:
    assert command("land", "nyc_flights", flights, "--source", "planes").code == 0
    assert set(landed(home)) == {"nyc_flights/references/planes.parquet"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--source", "flights", "--batch", "../../../etc/passwd"], "../../../etc/passwd"),
        (["--source", "flights", "--batch", "2014-01-01"], "2013-06-30"),
        (["--source", "flights", "--batch", "2013-6-7"], "YYYY-MM-DD"),
        (["--source", "flights"], "--batch"),
        (["--source", "planes", "--batch", "2013-06-07"], "leave --batch away"),
        (["--source", "trains", "--batch", "2013-06-07"], "flights, weather, planes"),
        (["--batch", "2013-06-07"], "flights, weather, planes"),
    ],
)
def test_a_bad_name_is_refused_with_what_would_do(
    command: Command, home: Path, flights: Path, options: list[str], said: str
) -> None:
    answer = command("land", "nyc_flights", flights, *options)
    assert answer.code == 2
    assert said in answer.err
    assert not landed(home)


def test_a_bad_file_is_refused_and_the_one_that_is_there_stays(command: Command, home: Path, flights: Path) -> None:
    where = ("--source", "flights", "--batch", "2013-06-07")
    command("land", "nyc_flights", flights, *where)
    before = landed(home)
    whole = flights.read_bytes()
    bad = {
        "empty.parquet": b"",
        "truncated.parquet": whole[: len(whole) // 2],
        "text.parquet": b"carrier\nUA\n",
        "day.csv": b"carrier\nUA\n",
    }
    for name, content in bad.items():
        path = flights.with_name(name)
        path.write_bytes(content)
        answer = command("land", "nyc_flights", path, *where)
        assert answer.code == 2, name
        assert name in answer.err
    assert "no such file" in command("land", "nyc_flights", flights.with_name("none.parquet"), *where).err
    assert landed(home) == before


def test_options_without_a_file_are_refused(command: Command, home: Path) -> None:
    assert command("land", "nyc_flights", "--source", "flights").code == 2
    assert not landed(home)


def test_list_shows_what_has_landed(command: Command) -> None:
    assert "nothing landed" in command("list").out
    command("land", "tiny")
    listed = command("list").out
    assert "tiny" in listed
    assert "batches, " in listed
