"""The reference pipeline is built once more: a window of it, by real Spark and torchrun, to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.batches import Split
from ml_platform.pipeline import FeatureGate, Limits
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.provenance.record import collect
from ml_platform.provenance.reproduce import reproduce
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform_tests.conftest import fresh_settings, land_samples

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST, LAST_TRAINED, LAST = "2013-05-27", "2013-05-31", "2013-06-02"


def test_a_week_of_flights_gives_the_same_weights_again(tmp_path: Path, spark: SparkSession) -> None:
    silent = Limits(warn=None, reject=None)  # of a week little can be said, and it is not what is looked at here
    week = replace(
        PIPELINE,
        split=Split.between(train=(FIRST, LAST_TRAINED), holdout=("2013-06-01", LAST)),
        recipe=replace(PIPELINE.recipe, epochs=1),
        feature_gate=FeatureGate(drift=silent, shift=silent),
        gates=(),
    )
    home = fresh_settings(tmp_path / "home")
    land_samples(week, landing_of(home), keep=lambda day: FIRST <= day <= LAST)
    names = [name for name in stages_of(week) if name != "registered_model"]
    summary = run_pipeline(week, home, Request(select=names))
    assert summary.ok, summary.problems
    chain = chain_of(stages_of(week), home)
    trained, evaluation, training_set = map(chain.published_artifact, ("trained_model", "evaluation", "training_set"))
    assert trained
    assert evaluation
    assert training_set

    record = collect(chain.store, week, trained=trained, evaluation=evaluation, training_set=training_set)
    came = reproduce(week, record, home, tmp_path / "again")
    assert came.problems == []
    assert [(stage.name, stage.same, stage.artifacts) for stage in came.stages if stage.same != stage.artifacts] == []
    assert came.weights_now == trained.file("weights.safetensors").sha256
    assert came.same
