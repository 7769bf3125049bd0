"""What `plan` says a run would do, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.cost import Cost
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.plan import StagePlan, make_plan
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.why import NEVER_BUILT
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import BATCH_STAGES, LOTS, WHOLE_STAGES
from ml_platform_tests.tiny_pipeline.data import readings


def plan(pipeline: Pipeline, settings: Settings) -> dict[str, StagePlan]:
    with prepare_instance(settings) as instance:
        chain = chain_of(stages_of(pipeline), settings, instance)
        chain.planning = True
        return {stage.name: stage for stage in make_plan(chain)}


def test_of_a_fresh_home_everything_may_run(settings: Settings, tiny: Pipeline) -> None:
    land_samples(tiny, landing_of(settings))
    found = plan(tiny, settings)
    assert found["raw_batch"].missing == LOTS
    assert [(str(cause), cause.count) for cause in found["raw_batch"].causes] == [(NEVER_BUILT, 6)]
    assert found["validated_batch"].may == LOTS
    assert found["features"].may == LOTS
    assert all(found[stage].may == [""] for stage in WHOLE_STAGES)


def test_after_a_run_nothing_is_to_do(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    found = plan(tiny, home)
    assert [name for name, stage in found.items() if stage.to_do] == []
    assert found["features"].fresh == LOTS


def test_a_parameter_is_named_with_both_values(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    longer = replace(tiny, recipe=replace(tiny.recipe, epochs=13))
    found = plan(longer, home)
    (cause,) = found["trained_model"].causes
    assert str(cause) == "parameter recipe.epochs: 12 -> 13"
    assert (cause.kind, cause.name, cause.before, cause.now) == ("parameter", "recipe.epochs", 12, 13)
    assert found["trained_model"].cost is not None
    assert found["trained_model"].cost.seconds > 0
    assert found["trained_model"].cost.gpu_hours == 0
    assert found["evaluation"].may == [""]
    assert found["evaluation"].waits_for == ["trained_model"]
    assert [str(root) for root in found["evaluation"].roots] == ["trained_model: parameter recipe.epochs: 12 -> 13"]
    assert found["evaluation"].cost == Cost()
    assert found["evaluation"].at_most is not None
    assert found["evaluation"].at_most.seconds > 0
    assert found["registered_model"].may == [""]
    assert [stage for stage in (*BATCH_STAGES, "training_set", "baseline") if found[stage].to_do] == []


def test_a_batch_that_landed_again_is_followed_down(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    landing = landing_of(home)
    landing.put(tiny, "readings", "lot-02", readings(99), "csv")
    try:
        found = plan(tiny, home)
    finally:
        landing.put(tiny, "readings", "lot-02", readings(1), "csv")
    assert found["raw_batch"].stale == ["lot-02"]
    said = "readings/lot-02.csv landed again with other content"
    assert list(map(str, found["raw_batch"].causes)) == [said]
    assert found["validated_batch"].may == ["lot-02"]
    assert found["features"].may == ["lot-02", "lot-03"], "its own, and those that look back on it"
    assert found["features"].stale == []
    assert found["training_set"].may == [""]
    assert found["registered_model"].waits_for == ["evaluation"]
    assert [str(root) for root in found["registered_model"].roots] == [f"raw_batch: {said}"]


def test_a_batch_whose_landed_file_is_gone_stays_what_was_taken_of_it(
    home: Settings, cold: RunSummary, tiny: Pipeline
) -> None:
    file = Path(home.landing) / "tiny" / "readings" / "lot-06.csv"
    kept = file.rename(file.with_name(".lot-06"))
    try:
        found = plan(tiny, home)
    finally:
        kept.rename(file)
    assert list(found["raw_batch"].fresh) == LOTS
    assert not found["raw_batch"].waiting
    assert [name for name, stage in found.items() if stage.to_do] == []


def test_a_colleagues_results_are_known(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = fresh_settings(tmp_path_factory.mktemp("other"), store=home.store, landing=home.landing, mlflow=home.mlflow)
    found = plan(tiny, other)
    assert {name for name, stage in found.items() if stage.stale or stage.may} == set()
    assert found["features"].known == LOTS
    assert found["registered_model"].known == [""], found


def test_a_rejected_batch_is_shown_with_the_gates_that_it_fails(settings: Settings, tiny: Pipeline) -> None:
    land_samples(tiny, landing_of(settings), keep=lambda lot: lot == "lot-01")
    bad = readings(1).set_column(3, "load", [[7.5] * 60])
    landing_of(settings).put(tiny, "readings", "lot-02", bad, "csv")
    run_pipeline(tiny, settings, Request(select=["raw_batch", "validated_batch"]))
    found = plan(tiny, settings)
    (refusal,) = found["validated_batch"].rejected.values()
    assert refusal.gates == ("values",)
    assert "load" in refusal.reason
    assert found["features"].missing == ["lot-01"]
    assert list(found["features"].waiting) == ["lot-02"]
