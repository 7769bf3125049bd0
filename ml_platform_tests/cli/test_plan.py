"""`plan` and `explain` on the command line: what they print, and what they end with."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ml_platform.cli.plan import show
from ml_platform.stages.plan import Refusal, StagePlan
from ml_platform_tests.cli.conftest import Command
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE


def test_a_plan_says_what_would_run_and_ends_with_two(command: Command, home: Path) -> None:
    assert command("land", "tiny").code == 0
    answer = command("plan", "tiny")
    assert answer.code == 2
    assert "raw_batch" in answer.out
    assert "never built (6)" in answer.out


def test_a_plan_of_nothing_ends_with_nought(command: Command, home: Path) -> None:
    answer = command("plan", "tiny")
    assert answer.code == 0
    assert "Nothing to do" in answer.out


def test_a_plan_for_programs_is_json(command: Command, home: Path) -> None:
    command("land", "tiny")
    record = json.loads(command("plan", "tiny", "--json").out)
    (pipeline,) = record["pipelines"]
    stages = pipeline["stages"]
    assert (record["schema"], pipeline["name"], pipeline["to_do"]) == (1, "tiny", True)
    assert [stage["name"] for stage in stages][:3] == ["raw_batch", "validated_batch", "features"]
    assert len(stages[0]["missing"]) == 6
    assert stages[0]["causes"][0]["text"] == "never built"
    assert stages[1]["waits_for"] == ["raw_batch"]
    assert "raw_batch" in pipeline["cost_unknown"], "nothing was ever built, so nobody knows how long it takes"


def test_explain_names_the_teams_own_module(command: Command, home: Path) -> None:
    answer = command("explain", "tiny", "features")
    assert answer.code == 0
    assert "ml_platform_tests/tiny_pipeline/features.py" in answer.out
    assert "function build" not in answer.out
    assert "pyspark" in answer.out
    assert "lookback" in answer.out


def test_explain_goes_down_to_the_functions(command: Command, home: Path) -> None:
    answer = command("explain", "tiny", "features", "--functions")
    assert "function build" in answer.out


def test_explain_refuses_a_stage_that_there_is_not(command: Command, home: Path) -> None:
    answer = command("explain", "tiny", "featurs")
    assert answer.code == 2
    assert "one of raw_batch" in answer.err


def test_a_plan_can_be_of_some_batches(command: Command, home: Path) -> None:
    command("land", "tiny")
    record = json.loads(command("plan", "tiny", "--batches", "lot-02..lot-03", "--json").out)
    assert record["pipelines"][0]["stages"][0]["missing"] == ["lot-02", "lot-03"]
    assert command("plan", "tiny", "--batches", "lot-02", "--diff", "main").code == 2


def test_of_a_stage_whose_version_is_set_by_hand_explain_says_so(
    command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ml_platform_tests.tiny_pipeline.pipeline.PIPELINE", replace(PIPELINE, versions={"features": "3"})
    )
    answer = command("explain", "tiny", "features")
    assert "set by hand: 3" in answer.out
    assert "features.py" not in answer.out
    assert "lookback" in answer.out, "parameters still count"


def test_why_a_batch_was_rejected_is_told_once() -> None:
    why = "drift: load: mean 991, usually 1,296 to 1,406."
    waits = f"tiny/validated_batch of lot-1 was rejected: {why.rstrip('.')}. Land the batch again."
    out = io.StringIO()
    found = [
        StagePlan(name="validated_batch", partitioned=True, rejected={"lot-1": Refusal(gates=("drift",), reason=why)}),
        StagePlan(name="features", partitioned=True, waiting={"lot-1": waits}),
    ]
    show("tiny", found, Console(file=out, width=200))
    assert out.getvalue().count("mean 991") == 1
    assert "lot-1 was rejected. Land the batch again." in out.getvalue()
