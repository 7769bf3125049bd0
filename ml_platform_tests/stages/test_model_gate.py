"""A new model that is worse than the champion stays out of the registry; going back to a known one is no such thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ml_platform.instance import prepare_instance
from ml_platform.pipeline import METRICS, Pipeline
from ml_platform.registry.connection import Connection
from ml_platform.registry.models import champion
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.against_champion import NOT_WORSE
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.run import Request, plan_pipeline, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.withdrawing import withdraw
from ml_platform_tests.stages.conftest import bodies, by_name, lazy
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    from ml_platform.store import Manifest

BELOW = Request(select=["trained_model", "evaluation", "registered_model"])


def published(pipeline: Pipeline, settings: Settings, stage: str) -> Manifest | None:
    with prepare_instance(settings) as instance:
        status = chain_of(stages_of(pipeline), settings, instance).statuses(stage)[""]
    return status.manifest


def said(pipeline: Pipeline, settings: Settings) -> dict[str, Any]:
    """The check that compares with the champion, as it stands for this pipeline."""
    manifest = published(pipeline, settings, "registered_model")
    assert manifest is not None
    return next(check for check in manifest.facts["checks"] if check["name"] == NOT_WORSE)


def version(settings: Settings) -> str:
    standing = champion(Connection(settings.mlflow), "tiny")
    assert standing is not None
    return standing.version


def test_a_worse_model_is_refused_with_the_difference_and_the_champion_stays(tiny: Pipeline, place: Settings) -> None:
    first = said(tiny, place)
    assert first["passed"]
    before = version(place)
    worse = lazy(tiny)
    summary = run_pipeline(worse, place, BELOW)
    assert by_name(summary)["registered_model"].rejected == 1
    assert not summary.ok
    assert "The model is not registered: Beside version 1: accuracy is" in summary.problems[0]
    assert "worse by" in summary.problems[0]
    check = said(worse, place)
    assert not check["passed"]
    assert not check["warn"]
    assert check["metadata"]["high"] < 0
    assert check["metadata"]["champion_version"] == before
    assert check["metadata"]["rows"] == published(worse, place, "evaluation").facts["rows"]  # type: ignore[union-attr]
    assert version(place) == before
    assert bodies(run_pipeline(worse, place, BELOW)) == {}, "the verdict stands"

    back = run_pipeline(tiny, place)
    assert back.ok
    assert bodies(back) == {}
    assert version(place) == before

    tolerant = lazy(tiny, champion="warn")
    let_in = run_pipeline(tolerant, place, BELOW)
    assert let_in.ok
    assert version(place) != before
    check = said(tolerant, place)
    assert not check["passed"]
    assert check["warn"]

    # The first model is better, and this is no matter of figures: it is what was there before.
    assert bodies(run_pipeline(tiny, place)) == {}
    assert version(place) == before
    # And the one that is worse is in the registry by now: going back to it, too, is a person's own wish.
    again = run_pipeline(lazy(tiny, champion="warn", tolerance=0.02), place, BELOW)
    assert by_name(again)["registered_model"].built == 1
    assert "registered already" in said(lazy(tiny, champion="warn", tolerance=0.02), place)["description"]
    assert version(place) != before


@pytest.mark.slow
def test_a_champion_that_learned_from_what_is_refused_now_keeps_nobody_out(tiny: Pipeline, place: Settings) -> None:
    chain = chain_of(stages_of(tiny), place)
    withdraw(chain, "lot-02", by="somebody", reason="recalled")
    worse = lazy(tiny)
    summary = run_pipeline(worse, place)
    assert by_name(summary)["registered_model"].built == 1
    check = said(worse, place)
    assert not check["passed"]
    assert check["warn"]
    assert "has learned from lot-02, which is refused now" in check["description"]


@pytest.mark.slow
def test_rows_that_the_champion_has_learned_from_are_left_out(tiny: Pipeline, place: Settings) -> None:
    # One lot withdrawn: the two that are held out move back by one, and the champion knows the first of them.
    withdraw(chain_of(stages_of(tiny), place), "lot-06", by="somebody", reason="recalled")
    summary = run_pipeline(tiny, place)
    assert summary.ok
    check = said(tiny, place)
    assert check["passed"]
    evaluated = published(tiny, place, "evaluation")
    assert evaluated is not None
    assert 0 < check["metadata"]["rows"] < evaluated.facts["rows"]
    assert check["metadata"]["rows"] <= 60


@pytest.mark.slow
def test_new_rows_are_scored_by_the_champion_from_the_store_or_the_registry(tiny: Pipeline, place: Settings) -> None:
    landing_of(place).put(tiny, "readings", "lot-07", readings(6), "csv")
    summary = run_pipeline(tiny, place)
    assert summary.ok, summary.problems
    check = said(tiny, place)
    assert check["metadata"]["champion_version"] == "1"
    evaluated = published(tiny, place, "evaluation")
    assert evaluated is not None
    assert check["metadata"]["rows"] == evaluated.facts["rows"], "lot-06 and lot-07, which it has never seen"

    # A colleague's store that has none of it, and the same registry: the files come from there.
    client = Connection(place.mlflow).client
    client.set_registered_model_alias("tiny", "champion", "1")
    client.set_model_version_tag("tiny", "1", "ml_platform.fingerprint", "0" * 32)
    client.delete_model_version("tiny", "2")
    forced = run_pipeline(tiny, place, Request(select=["registered_model"], force=True))
    assert forced.ok, forced.problems
    assert said(tiny, place)["metadata"] == check["metadata"]
    assert not [stage for stage in plan_pipeline(tiny, place) if stage.to_do]


def test_an_evaluation_tells_all_that_there_is_to_know(tiny: Pipeline, home: Settings, cold: RunSummary) -> None:
    evaluated = published(tiny, home, "evaluation")
    assert evaluated is not None
    facts = evaluated.facts
    for name in METRICS[tiny.task]:
        low, high = facts["intervals"][name]
        assert low <= facts["metrics"][name] <= high
    told = {c["name"]: c for c in facts["checks"]}
    assert {"predictions_differ", "calibrated", "gate_accuracy", "beats_constant"} <= told.keys()
    assert told["beats_constant"]["passed"]
    assert facts["beats_constant"]["low"] > 0
    assert facts["constant"]["accuracy"] < facts["metrics"]["accuracy"]
    assert [batch["batch"] for batch in facts["over_time"]] == ["lot-05", "lot-06"]
    assert {row["class"] for row in facts["classes"]} == {"fine", "worn", "broken"}
    assert facts["importance"][0]["feature"] == "vibration"
    assert {"over_time.json", "importance.json", "found_slices.json", "plots/by_batch.png"} <= {
        file.name for file in evaluated.files
    }
    client = Connection(home.mlflow).client
    run = client.get_run(champion(Connection(home.mlflow), "tiny").run_id)  # type: ignore[union-attr]
    assert run.data.metrics["accuracy_low"] == pytest.approx(facts["intervals"]["accuracy"][0])
    assert {"constant_accuracy", "calibration_error_high"} <= run.data.metrics.keys()
    assert run.data.tags["ml_platform.beside_champion"]
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "plots")}
    assert {"plots/by_batch.png", "plots/feature_importance.png", "plots/reliability.png"} <= logged
