"""The summary at the end of a run says what a person wants to know, and `ok` is true only when all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from ml_platform.cli.summary import show
from ml_platform.settings import Settings
from ml_platform.stages.summary import GateOutcome, RegisteredModel, RunSummary, StageSummary

WELL = RunSummary(
    pipeline="nyc_flights",
    run_id="1234",
    stages=(
        StageSummary(name="validated_batch", built=5, fresh=170, rejected=3, seconds=12.5, detail="90,000 rows/s"),
        StageSummary(name="features", cached=2),
    ),
    accepted=175,
    rejected={f"2013-01-{day:02}": "[nulls] `origin` is missing" for day in range(1, 11)} | {"2013-02-01": "empty"},
    incomplete={"2013-03-01": "weather has not landed"},
    metrics={"accuracy": 0.81, "roc_auc": 0.7512},
    baseline_metrics={"roc_auc": 0.76},
    gates=(GateOutcome(name="roc_auc >= 0.72", value=0.7512, passed=True),),
    model=RegisteredModel(name="nyc_flights", version="3", uri="models:/nyc_flights/3", aliases=("champion",)),
    seconds=61.2,
)


def shown(summary: RunSummary, settings: Settings) -> str:
    console = Console(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    show(summary, "binary", settings, console)
    return console.export_text()


def test_it_names_batches_metrics_gates_and_the_model(settings: Settings) -> None:
    text = shown(WELL, settings)
    assert "175 accepted, 11 rejected, 1 incomplete" in text
    assert "[nulls] `origin` is missing" in text, "a reason in brackets was taken for markup"
    assert "2013-01-08 and 2 more" in text
    assert "weather has not landed" in text
    assert "0.7512" in text
    assert "-0.0088" in text
    assert text.index("roc_auc") < text.index("accuracy"), "the task's first metric comes first"
    assert "nyc_flights version 3 (champion)" in text
    assert "models:/nyc_flights/3" in text
    assert settings.mlflow in text
    assert "make ui" in text


def test_it_says_which_checks_warn_of_which_batches(settings: Settings) -> None:
    text = shown(replace(WELL, warned={"2013-04-01": ["drift"], "2013-04-02": ["drift", "freshness"]}), settings)
    assert "2013-04-01, 2013-04-02: drift" in text
    assert "2013-04-02: freshness" in text
    assert "ml-platform gates nyc_flights" in text


def test_it_says_which_of_the_accepted_are_waived(settings: Settings) -> None:
    text = shown(replace(WELL, waived=("2013-04-01", "2013-04-02")), settings)
    assert "175 accepted (2 of them waived), 11 rejected" in text
    assert "waived    2013-04-01, 2013-04-02" in text
    assert "waived" not in shown(WELL, settings)


def test_a_long_remark_on_a_stage_stands_below_the_table(settings: Settings) -> None:
    remark = "lot-1 has not been validated by this code: materialize it first"
    stages = (StageSummary(name="features", built=1, detail=remark), StageSummary(name="other", detail="402 rows/s"))
    text = shown(replace(WELL, stages=stages), settings)
    assert text.count(remark) == 1
    assert f"features  {remark}" in text
    assert "402 rows/s" in text


def test_a_rejected_batch_is_a_verdict_and_no_failure() -> None:
    assert WELL.ok


@pytest.mark.parametrize(
    "change",
    [
        {"problems": ("trained_model: the job ended with exit code 1",)},
        {"stages": (StageSummary(name="features", failed=1),)},
        {"gates": (GateOutcome(name="roc_auc >= 0.72", value=float("nan"), passed=False),)},
    ],
)
def test_what_failed_is_shown_and_not_ok(change: dict[str, object], settings: Settings) -> None:
    summary = replace(WELL, **change)  # type: ignore[arg-type]
    assert not summary.ok
    text = shown(summary, settings)
    assert "exit code 1" in text or "FAILED" in text or "failed" in text


def test_an_interrupted_run_says_how_to_go_on(settings: Settings) -> None:
    text = shown(RunSummary(pipeline="p", problems=("x.DagsterExecutionInterruptedError\n",)), settings)
    assert "run it again" in text
    assert "DagsterExecution" not in text


def test_a_run_with_nothing_in_it_still_says_something(settings: Settings) -> None:
    assert "nothing was to be done" in shown(RunSummary(pipeline="empty"), settings)
