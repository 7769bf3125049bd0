"""`ml-platform check`: what it ends with, what it says in each format, what it compares with; it leaves nothing.

All of it is on the tiny pipeline: one CSV source, `readings`, whose batches are named lots.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.gates.report import FAMILIES, HISTORY_FAMILIES, GateReport
from ml_platform.pipeline import BatchGate, Limits
from ml_platform.settings import child_environment
from ml_platform_tests.cli.conftest import TINY, Command, Write, idle, night_shift
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE


def everything_under(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and when it was changed."""
    stats = {str(path): path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


# What it ends with


def test_a_good_file_is_accepted_and_ends_with_nought(command: Command, lot: Write) -> None:
    answer = command("check", "tiny", "--path", lot(1))
    assert answer.code == 0, answer.err
    assert "ACCEPTED  readings lot-01, 60 rows" in answer.out


def test_a_bad_file_is_rejected_and_ends_with_one(command: Command, lot: Write) -> None:
    answer = command("check", "tiny", "--path", lot(1, night_shift), "--path", lot(2))
    assert answer.code == 1
    assert "2 of 60 (3.3%)" in answer.out
    assert "row 3 has 9" in answer.out
    assert "2 files: 1 accepted, 1 rejected." in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("no_such_pipeline", "--path", "lot-01.csv"), "There is no such pipeline."),
        (("tiny",), "What is to be checked?"),
        (("tiny", "--path", "nowhere/lot-01.csv"), "There is no such file."),
        (("tiny", "--batch", "lot-01"), "The batch has not landed."),
        (("tiny", "--path", __file__), "is declared as csv"),
        (("tiny", "--source", "readings"), "--source goes with --path"),
        (("tiny", "--path", __file__, "--source", "reedings"), "no such source"),
        (("tiny", "--path", __file__, "--format", "pdf"), "pdf"),
    ],
)
def test_what_cannot_be_found_out_ends_with_two(command: Command, words: tuple[str, ...], said: str) -> None:
    answer = command("check", *words)
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err


def test_a_store_that_is_away_is_no_verdict(command: Command, lot: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_STORE", "nosuch://bucket/store")
    assert command("check", "tiny", "--path", lot(1)).code == 2
    assert command("check", "tiny", "--path", lot(1), "--against", "none").code == 0


# What it says


def test_an_annotation_names_file_column_rule_and_counts(command: Command, lot: Write) -> None:
    bad = lot(1, night_shift)
    answer = command("check", "tiny", "--path", bad, "--format", "github")
    error, notice = answer.out.splitlines()
    found = re.fullmatch(r"::error file=([^,:]+),title=([^,:]+)::(.+)", error)
    assert found is not None, error
    file, title, message = found.groups()
    assert file == str(bad)
    assert "readings lot-01 rejected" in title.replace("%3A", ":")
    assert "column shift" in title
    assert str(bad) in message
    assert "2 of 60 rows break" in message
    assert "less_than_or_equal_to(3)" in message or "in_range(1, 3)" in message
    assert "on shift, first: row 3 has 9" in message
    assert notice.startswith("::notice ")
    assert notice.endswith("0 of 1 files are accepted")


def test_what_is_in_the_data_cannot_end_an_annotation(command: Command, lot: Write) -> None:
    trap = "50%,a:b\n::error::trapped"
    bad = lot(1, lambda frame: frame.with_columns(machine=pl.lit(trap)), folder="a, b: 100%/readings")
    answer = command("check", "tiny", "--path", bad, "--format", "github")
    assert answer.code == 1
    assert [line.partition(" ")[0] for line in answer.out.splitlines()] == ["::error", "::notice"]
    properties, _, _ = answer.out.removeprefix("::error ").partition("::")
    assert dict(part.split("=") for part in properties.split(","))["file"].endswith(
        "a%2C b%3A 100%25/readings/lot-01.csv"
    )


def test_files_take_turns_since_only_ten_annotations_are_shown(command: Command, lot: Write) -> None:
    bad = [lot(n, lambda frame: night_shift(frame).with_columns(load=pl.lit(2.0))) for n in (1, 2)]
    out = command("check", "tiny", "--path", *bad, "--format", "github").out
    errors = re.findall(r"^::error file=[^,]*(lot-\d+).csv,.*column (\w+)::", out, re.MULTILINE)
    assert errors == [("lot-01", "load"), ("lot-02", "load"), ("lot-01", "shift"), ("lot-02", "shift")]


def test_what_only_warns_is_a_warning_and_accepted(
    command: Command, lot: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenient = replace(PIPELINE, batch_gate=BatchGate(drift=Limits(reject=None)))
    monkeypatch.setattr("ml_platform_tests.tiny_pipeline.pipeline.PIPELINE", lenient)
    for number in range(1, BatchGate().least + 1):
        lot(number, folder="earlier")
    words = ("check", "tiny", "--path", lot(50, idle), "--against", tmp_path / "earlier", "--format")
    answer = command(*words, "github")
    assert answer.code == 0
    assert "::error" not in answer.out
    assert re.search(r"^::warning file=.*column load::", answer.out, re.MULTILINE)
    (case,) = ET.fromstring(command(*words, "junit").out).findall("testsuite/testcase[@name='drift']")
    assert case.find("failure") is None
    assert "load" in (case.findtext("system-out") or "")


def test_junit_has_a_suite_a_file_and_a_case_a_family(command: Command, lot: Write) -> None:
    unreadable = lot(3)
    unreadable.write_bytes(b"reading,machine\n1\n")
    bad = lot(1, lambda frame: night_shift(frame).with_columns(machine=pl.lit("a\ufffeb<&")))
    answer = command("check", "tiny", "--path", bad, lot(2), unreadable, "--format", "junit", "--against", "none")
    assert answer.code == 1
    root = ET.fromstring(answer.out)
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"readings lot-01", "readings lot-02", "readings lot-03"}
    for suite in root:
        assert [case.get("name") for case in suite] == [*FAMILIES, *HISTORY_FAMILIES]
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
    assert root.get("tests") == str(3 * 11)
    assert suites["readings lot-02"].get("failures") == "0"
    assert int(suites["readings lot-03"].get("skipped") or 0) > 0
    (failure,) = suites["readings lot-01"].findall("testcase/failure")
    assert str(bad) in (failure.text or "")
    assert "column shift" in (failure.text or "")
    assert "2 of 60 rows" in (failure.text or "")
    assert "a\\ufffeb<&" in (failure.text or "")


def test_json_is_the_report(command: Command, lot: Write) -> None:
    bad = lot(1, night_shift)
    answer = command("check", "tiny", "--path", bad, "--path", lot(2), "--format", "json")
    record = json.loads(answer.out)
    assert (record["schema"], record["pipeline"], record["accepted"]) == (1, "tiny", False)
    first, second = (GateReport.from_json(json.dumps(file["report"])) for file in record["files"])
    assert record["files"][0]["path"] == str(bad)
    assert (first.accepted, first.batch, first.feed, first.failed) == (False, "lot-01", "readings", ("values",))
    assert first.family("values").failures == 2
    assert [case["row"] for case in first.family("values").cases] == [3, 40]
    assert (second.accepted, second.rows) == (True, 60)


def test_a_path_is_shown_from_where_one_stands(
    command: Command, lot: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot(1)
    monkeypatch.chdir(tmp_path)
    record = json.loads(
        command("check", "tiny", "--path", tmp_path / "data/readings/lot-01.csv", "--format", "json").out
    )
    assert record["files"][0]["path"] == "data/readings/lot-01.csv"


def test_in_forty_columns_the_signs_stay(command: Command, lot: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = command("check", "tiny", "--path", lot(1, night_shift)).out
    assert max(map(len, out.splitlines()[2:])) <= 40, "but for the path"
    assert re.search(r"^  ✗  values +FAILED ", out, re.MULTILINE)
    assert re.search(r"^  ·  freshness  not reached ", out, re.MULTILINE)
    assert re.search(r"^  ✓  readable", out, re.MULTILINE)


def test_one_row_is_no_rows(command: Command, lot: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--against", "none", "--format")
    one = lot(1, lambda frame: frame.head(1))
    assert "lot-01, 1 row\n" in command("check", "tiny", "--path", one, *words, "table").out
    assert "accepted, 1 row." in command("check", "tiny", "--path", one, *words, "json").out
    lenient = replace(PIPELINE, sources=(replace(PIPELINE.sources[0], quarantine=0.1),))
    monkeypatch.setattr("ml_platform_tests.tiny_pipeline.pipeline.PIPELINE", lenient)
    two = lot(2, night_shift)
    assert "accepted, 58 rows; 2 of 60 are set aside." in command("check", "tiny", "--path", two, *words, "json").out
    two = lot(2, lambda frame: night_shift(frame).head(30))
    assert "accepted, 29 rows; 1 of 30 is set aside." in command("check", "tiny", "--path", two, *words, "json").out


def test_a_range_that_selects_nothing_names_the_option_it_was_given_by(command: Command) -> None:
    for text in ("lot-05..lot-01", "lot-01..lot-05"):
        answer = command("check", "tiny", "--batch", text)
        assert answer.code == 2
        assert "--batch\n" in answer.err


# What it leaves


def test_an_archived_batch_is_checked_where_its_file_is_gone_and_nothing_is_recorded(
    command: Command, home: Path
) -> None:
    command("land", "tiny")
    assert command("run", "tiny", "--select", "raw_batch,validated_batch", "--batches", "lot-01,lot-02").code == 0
    (home / "landing/tiny/readings/lot-01.csv").unlink()
    kept = {folder: everything_under(home / folder) for folder in ("store", "landing", "dagster", "mlflow")}
    answer = command("check", "tiny", "--batch", "lot-01", "--batch", "lot-02..lot-03")
    assert answer.code == 0, answer.err
    assert [name in answer.out for name in ("lot-01", "lot-02", "lot-03")] == [True] * 3
    assert {folder: everything_under(home / folder) for folder in kept} == kept


def test_it_starts_neither_spark_nor_dagster(home: Path, lot: Write) -> None:
    heavy = ("dagster", "torch", "mlflow", "sklearn", "matplotlib", "s3fs")
    words: list[Any] = ["check", "tiny", "--path", str(lot(1, night_shift))]
    program = (
        "import sys\n"
        "from ml_platform.cli.main import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "except SystemExit as ended:\n"
        "    context = getattr(sys.modules.get('pyspark'), 'SparkContext', None)\n"
        "    started = context is not None and context._gateway is not None\n"
        f"    print('CODE', ended.code, [m for m in {heavy!r} if m in sys.modules], started)\n"
    )
    environment = child_environment(ML_PLATFORM_HOME=str(home), ML_PLATFORM_PIPELINES=TINY)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert answer.stdout.splitlines()[-1] == "CODE 1 [] False", answer.stderr
    assert not home.exists()
