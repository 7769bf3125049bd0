"""What `ml-platform check` compares with: a store that must be there, files of a folder, what the same call accepts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ml_platform.pipeline import BatchGate
from ml_platform.stages.opening import landing_of
from ml_platform_tests.cli.conftest import Command, Write, as_made, idle, night_shift
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE


def test_a_store_or_an_index_that_is_named_and_is_not_there_is_no_verdict(
    command: Command, lot: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty := tmp_path / "not mounted").mkdir()
    for variable, place, said in (
        ("ML_PLATFORM_STORE", "/proc/none", "The store that is named is not there"),
        ("ML_PLATFORM_STORE", str(empty), "nothing is in it"),
        ("ML_PLATFORM_STORE", f"memory://{tmp_path.name}/store", "nothing is in it"),
        ("ML_PLATFORM_STORE", __file__, "The store cannot be read"),
        ("ML_PLATFORM_DAGSTER_HOME", str(tmp_path / "nowhere"), "The Dagster home that is named is not there"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, place)
            answer = command("check", "tiny", "--path", lot(1))
            assert (answer.code, answer.out) == (2, ""), place
            assert said in answer.err
            assert place in answer.err
            assert command("check", "tiny", "--path", lot(1), "--against", "none").code == 0


def test_a_store_that_is_gone_from_its_home_is_no_verdict(command: Command, home: Path, lot: Write) -> None:
    command("land", "tiny")
    assert command("run", "tiny", "--select", "raw_batch,validated_batch", "--batches", "lot-01,lot-02").code == 0
    again = lot(0, name="lot-20")
    assert command("check", "tiny", "--path", again).code == 1, "lot-01 again"
    (home / "store").rename(home / "elsewhere")
    answer = command("check", "tiny", "--path", again)
    assert answer.code == 2
    assert "none of the batches that were accepted" in answer.err


def test_a_machine_that_only_shares_the_store_compares_with_what_was_accepted_there(
    command: Command, home: Path, lot: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("land", "tiny")
    assert command("run", "tiny", "--select", "raw_batch,validated_batch", "--batches", "lot-01,lot-02").code == 0
    monkeypatch.setenv("ML_PLATFORM_STORE", str(home / "store"))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "another"))
    answer = command("check", "tiny", "--path", lot(0, name="lot-20"))
    assert answer.code == 1
    assert "those of lot-01 again" in answer.out


def test_a_file_is_compared_with_those_of_a_folder(command: Command, lot: Write, tmp_path: Path) -> None:
    least = BatchGate().least
    for number in range(1, least + 1):
        lot(number, folder="earlier/readings")
    for folder in ("earlier", "earlier/readings"):
        assert command("check", "tiny", "--path", lot(20), "--against", tmp_path / folder).code == 0
        answer = command("check", "tiny", "--path", lot(20, idle), "--against", tmp_path / folder, "--format", "github")
        assert answer.code == 1
        assert "column load" in answer.out
        assert f"{least} accepted batches" in answer.out
    assert command("check", "tiny", "--path", lot(20, idle), "--against", "none").code == 0


def test_only_what_came_before_and_keeps_its_schema_is_compared_with(
    command: Command, lot: Write, tmp_path: Path
) -> None:
    least = BatchGate().least
    for number in range(1, least + 1):
        lot(number, folder="earlier")
    against = ("--against", tmp_path / "earlier")
    assert command("check", "tiny", "--path", lot(50, idle), *against).code == 1
    assert command("check", "tiny", "--path", lot(5, idle), *against).code == 0, "four lots come before the fifth"
    lot(3, night_shift, folder="earlier")
    answer = command("check", "tiny", "--path", lot(50, idle), *against)
    assert answer.code == 0, "one fewer than is needed"
    assert "lot-03.csv: its schema rejects it" in answer.err


def test_an_earlier_lot_again_is_found(command: Command, lot: Write, tmp_path: Path) -> None:
    for number in range(1, 4):
        lot(number, folder="earlier")
    again = lot(2, name="lot-20")
    answer = command("check", "tiny", "--path", again, "--against", tmp_path / "earlier", "--format", "github")
    assert answer.code == 1
    assert "lot-02" in answer.out


def test_of_a_folder_every_copy_is_found_however_long_ago(
    command: Command, lot: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(PIPELINE, batch_gate=BatchGate(history=3, least=3))
    monkeypatch.setattr("ml_platform_tests.tiny_pipeline.pipeline.PIPELINE", short)
    for number in range(1, 7):
        lot(number, folder="earlier")
    for name in ("lot-20", "lot-00", "someones"):
        answer = command("check", "tiny", "--path", lot(1, name=name), "--against", tmp_path / "earlier")
        assert answer.code == 1, name
        assert "those of lot-01 again" in answer.out
    itself = tmp_path / "earlier" / "lot-01.csv"
    assert command("check", "tiny", "--path", itself, "--against", tmp_path / "earlier").code == 0


def test_what_is_accepted_in_a_call_joins_the_folder(command: Command, lot: Write, tmp_path: Path) -> None:
    least = BatchGate().least
    for number in range(1, least):
        lot(number, folder="earlier")
    against = ("--against", tmp_path / "earlier", "--format", "json")

    def accepted(*paths: Path) -> list[bool]:
        files = json.loads(command("check", "tiny", "--path", *paths, *against).out)["files"]
        return [file["report"]["accepted"] for file in files]

    assert accepted(lot(50, idle)) == [True], "one fewer than is needed"
    assert accepted(lot(40), lot(50, idle)) == [True, False]
    assert accepted(lot(40), lot(40, name="lot-41")) == [True, False], "twice the same"
    nameless = [lot(40, name="readings", folder=folder) for folder in ("one", "two")]
    assert accepted(*nameless) == [True, False], "though they belong to no batch"
    lot(least, idle, folder="earlier")
    lot(least + 1, folder="earlier")
    bad = lot(least, night_shift)
    assert accepted(lot(50, idle)) == [False]
    assert accepted(bad, tmp_path / "earlier" / f"lot-{least + 1}.csv", lot(50, idle)) == [False, True, False]


def test_a_new_level_is_usual_after_three_batches_and_a_third_one_is_not(
    command: Command, lot: Write, tmp_path: Path
) -> None:
    """What docs/gates.md promises to who has waived the first ones."""
    for number in range(1, 21):
        lot(number, folder="earlier")
    codes = []
    for number in range(21, 25):
        new = lot(number, idle)
        codes.append(command("check", "tiny", "--path", new, "--against", tmp_path / "earlier").code)
        lot(number, idle, folder="earlier")
    assert codes[0] == 1
    assert codes[-1] == 0
    odd = lot(30, lambda frame: frame.with_columns(pl.lit(0.5).alias("load")))
    assert command("check", "tiny", "--path", odd, "--against", tmp_path / "earlier").code == 1


def test_what_changes_slowly_is_not_seen(command: Command, lot: Write, tmp_path: Path) -> None:
    """What docs/gates.md warns of."""
    for number in range(1, 41):
        lot(number, lambda frame, n=number: frame.with_columns(pl.col("load") * 0.3 * 1.01**n), folder="all")
    words = ("--path", *sorted((tmp_path / "all").iterdir()), "--against", tmp_path / "all")
    assert command("check", "tiny", *words).code == 0


def test_where_nothing_is_compared_a_repeat_is_told(command: Command, lot: Write) -> None:
    answer = command("check", "tiny", "--path", lot(1), lot(1, name="lot-02"), lot(3), "--against", "none")
    assert answer.code == 0
    assert "lot-02 has the very rows of lot-01" in answer.err
    assert "lot-03" not in answer.err


def test_a_folder_without_batches_is_no_history(command: Command, lot: Write, tmp_path: Path) -> None:
    answer = command("check", "tiny", "--path", lot(1), "--against", tmp_path / "nowhere")
    assert answer.code == 2
    assert "nothing to compare with" in answer.err


def test_of_several_batches_each_is_compared_with_those_accepted_before_it(
    command: Command, home: Path, lot: Write
) -> None:
    last = BatchGate().least + 1
    landing = landing_of(fresh_settings(home))
    for number in range(1, last + 1):
        landing.put("tiny", "readings", f"lot-{number:02d}", lot(number, idle if number == last else as_made), "csv")
    record = json.loads(command("check", "tiny", "--batch", "..", "--format", "json").out)
    accepted = {file["report"]["batch"]: file["report"]["accepted"] for file in record["files"]}
    assert accepted == {f"lot-{number:02d}": number != last for number in range(1, last + 1)}
    alone = json.loads(command("check", "tiny", "--batch", f"lot-{last}", "--format", "json").out)
    assert alone["accepted"], "nothing is accepted in the store yet"
