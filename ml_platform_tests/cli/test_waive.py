"""`waive` and `waivers` on the command line, up to the gate, without Spark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_platform.landing import Landing
from ml_platform_tests.cli.conftest import Command
from ml_platform_tests.tiny_pipeline.data import readings
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE

GATES = ("--select", "raw_batch,validated_batch")


@pytest.fixture
def rejected(command: Command, home: Path) -> Command:
    landing = Landing(str(home / "landing"), settle_seconds=0.0)
    landing.put(PIPELINE, "readings", "lot-1", readings(1), "csv")
    landing.put(PIPELINE, "readings", "lot-2", readings(2).set_column(3, "load", [[7.5] * 60]), "csv")
    command("run", "tiny", *GATES)
    return command


def test_a_rejected_batch_is_waived_listed_and_revoked(rejected: Command) -> None:
    assert "Nothing was ever waived" in rejected("waivers", "tiny").out
    answer = rejected("waive", "tiny", "lot-2", "--reason", "a new scale", "--by", "Ada", "--expires", "2d")
    assert answer.code == 0
    assert "waived by Ada" in answer.out
    assert "load" in answer.out, "what the gate had said"
    assert "lot-2 was waived" in rejected("plan", "tiny").out
    answer = rejected("run", "tiny", *GATES)
    assert answer.code == 0
    assert "2 accepted (1 of them waived), 0 rejected" in answer.out
    assert "warned" not in answer.out
    gate = json.loads(rejected("plan", "tiny", "--json").out)["pipelines"][0]["stages"][1]
    assert gate["fresh"] == ["lot-1", "lot-2"]
    assert not gate["rejected"]
    listed = rejected("waivers").out
    for word in ("lot-2", "Ada", "a new scale", "holds"):
        assert word in listed
    assert rejected("waive", "tiny", "lot-2", "--revoke", "--reason", "an old scale").code == 0
    assert "revoked by" in rejected("waivers").out


def test_waivers_are_readable_in_eighty_columns(rejected: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    why = "a new scale was put in, and it shows percents times ten"
    assert rejected("waive", "tiny", "lot-2", "--reason", why, "--by", "Ada").code == 0
    assert rejected("withdraw", "tiny", "lot-1", "--reason", "[sic] asked to", "--by", "Ada").code == 0
    listed = rejected("waivers").out
    assert why in listed, "it is cut into pieces"
    assert "[sic] asked to" in listed
    assert "for good" in listed
    assert len(listed.splitlines()) < 12


def test_why_a_rejected_batch_has_no_features_is_told_once(rejected: Command) -> None:
    answer = rejected("run", "tiny", "--select", "features", "--batches", "lot-2", "--force")
    assert answer.code == 1
    assert answer.out.count("60 of 60 rows break") == 1
    assert answer.out.count("ml-platform waive") == 1
    assert "0 accepted, 1 rejected" in answer.out


def test_what_cannot_be_waived_is_said(rejected: Command) -> None:
    answer = rejected("waive", "tiny", "lot-1", "--reason", "to be safe")
    assert answer.code == 2
    assert "not rejected" in answer.err
    assert rejected("waive", "tiny", "lot-2").code == 2, "without a reason"
    assert rejected("waive", "tiny", "lot-2", "--revoke", "--reason", "never given").code == 2


def test_a_batch_is_withdrawn_listed_and_put_back(rejected: Command) -> None:
    def gate() -> dict[str, object]:
        found: dict[str, object] = json.loads(rejected("plan", "tiny", "--json").out)["pipelines"][0]["stages"][1]
        return found

    said = "batch lot-1 is withdrawn by Ada: asked to"
    assert rejected("withdraw", "tiny", "lot-1").code == 2, "without a reason"
    assert "no such batch" in rejected("withdraw", "tiny", "lot-9", "--reason", "asked to").err
    answer = rejected("withdraw", "tiny", "lot-1", "--reason", "asked to", "--by", "Ada")
    assert answer.code == 0
    assert said in answer.out
    assert said in rejected("plan", "tiny").out
    assert gate()["withdrawn"] == [{"batch": "lot-1", "reason": said}]
    assert gate()["fresh"] == []
    listed = rejected("waivers").out
    for word in ("withdrawn", "lot-1", "Ada", "holds"):
        assert word in listed
    again = rejected("withdraw", "tiny", "lot-1", "--reason", "asked to")
    assert again.code == 2
    assert "withdrawn already" in again.err
    assert rejected("withdraw", "tiny", "lot-1", "--revoke", "--reason", "another lot").code == 0
    assert "revoked by" in rejected("waivers").out
    assert gate()["fresh"] == ["lot-1"]


def test_what_a_gate_refused_is_told_apart_from_what_was_made_of_a_batch(rejected: Command) -> None:
    def told(batch: str) -> list[str]:
        """Made of it, rejected, standing now."""
        lines = rejected("impact", "tiny", "--batch", batch).out.splitlines()
        return next(line.split()[1:4] for line in lines if line.startswith("validated_batch"))

    assert told("lot-1") == ["1", "-", "1"]
    assert told("lot-2") == ["-", "1", "-"]


def test_a_taken_batch_whose_landed_file_is_gone_stays(rejected: Command, home: Path) -> None:
    def fresh(*options: str) -> list[list[str]]:
        stages = json.loads(rejected("plan", "tiny", "--json", *options).out)["pipelines"][0]["stages"]
        return [stage["fresh"] for stage in stages[:2]]

    (landed,) = (home / "landing").rglob("lot-1.csv")
    landed.unlink()
    assert fresh("--batches", "lot-1..lot-1") == [["lot-1"], ["lot-1"]]
    assert rejected("run", "tiny", *GATES, "--batches", "lot-1..").code == 0
    assert rejected("run", "tiny", *GATES, "--batches", "lot-1..lot-1", "--force").code == 0, "from the archive"
    assert fresh() == [["lot-1", "lot-2"], ["lot-1"]]
