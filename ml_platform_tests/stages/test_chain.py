"""The tiny pipeline through the whole chain: real Spark, real torchrun, real MLflow, one Dagster run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ml_platform.instance import prepare_instance
from ml_platform.pipeline import MetricGate, Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.assets import build_assets
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.resources import build_resources
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import BATCH_STAGES, LOTS, WHOLE_STAGES, bodies, by_name, key
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def instance(home: Settings, cold: RunSummary) -> Iterator[dg.DagsterInstance]:
    with prepare_instance(home) as instance:
        yield instance


def test_the_chain_ends_in_a_registered_champion(cold: RunSummary) -> None:
    assert cold.problems == []
    assert cold.accepted == len(LOTS)
    assert bodies(cold) == dict.fromkeys(BATCH_STAGES, len(LOTS)) | dict.fromkeys(WHOLE_STAGES, 1)
    assert cold.model is not None
    assert (cold.model.name, cold.model.version, tuple(cold.model.aliases)) == ("tiny", "1", ("champion",))
    assert cold.metrics["accuracy"] > 0.8
    assert set(cold.baseline_metrics) == set(cold.metrics)
    assert [gate.passed for gate in cold.gates] == [True]


def test_every_batch_has_its_own_versions_and_checks_in_dagster(instance: dg.DagsterInstance, tiny: Pipeline) -> None:
    for stage in BATCH_STAGES:
        records = instance.fetch_materializations(key(tiny, stage), limit=100).records
        latest = {r.partition_key: r.asset_materialization for r in records}
        assert sorted(filter(None, latest)) == LOTS
        versions = {m.tags["dagster/data_version"] for m in latest.values() if m and m.tags}
        assert len(versions) == len(LOTS), "each batch has other content, so another data version"
        for materialization in latest.values():
            assert materialization is not None
            assert materialization.tags is not None
            assert materialization.tags["dagster/code_version"] == stages_of(tiny)[stage].version.value
            assert len(materialization.tags["ml_platform/fingerprint"]) == 32
    checks = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key(tiny, "validated_batch"), "values"), limit=100
    )
    assert len(checks) == len(LOTS)


def test_dagster_thinks_that_everything_is_fresh(instance: dg.DagsterInstance, tiny: Pipeline) -> None:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
    from dagster._core.loader import LoadingContextForTest

    defs = dg.Definitions(assets=build_assets(stages_of(tiny)), resources=build_resources(fresh_settings(Path("x"))))
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, loading_context=LoadingContextForTest(instance))
    for stage in BATCH_STAGES:
        for lot in LOTS:
            status = resolver.get_status(key(tiny, stage), lot)
            assert status == StaleStatus.FRESH, (stage, lot, resolver.get_stale_causes(key(tiny, stage), lot))
    for stage in WHOLE_STAGES[1:]:
        causes = resolver.get_stale_causes(key(tiny, stage))
        assert resolver.get_status(key(tiny, stage)) == StaleStatus.FRESH, (stage, causes)


def test_a_second_run_runs_nothing_and_publishes_nothing(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    with prepare_instance(home) as instance:
        before = {s: instance.fetch_materializations(key(tiny, s), limit=100).records for s in WHOLE_STAGES}
    again = run_pipeline(tiny, home)
    assert bodies(again) == {}
    assert again.model == cold.model
    with prepare_instance(home) as instance:
        for stage, records in before.items():
            assert len(instance.fetch_materializations(key(tiny, stage), limit=100).records) == len(records)


def test_another_dagster_takes_everything_from_the_store(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    other = fresh_settings(tmp_path / "colleague", store=home.store, landing=home.landing, mlflow=home.mlflow)
    summary = run_pipeline(tiny, other)
    assert bodies(summary) == {}
    assert by_name(summary)["features"].cached == len(LOTS)
    assert summary.model == cold.model
    assert summary.metrics == cold.metrics


def test_the_champion_scores_raw_rows(home: Settings, cold: RunSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(home.mlflow)
    model = mlflow.pyfunc.load_model("models:/tiny@champion")
    rows = pd.DataFrame(
        {
            "load": [0.1, 0.9],
            "vibration": [0.5, 9.5],
            "vibration_before": [None, 8.0],
            "machine": ["lathe", "saw"],
            "shift": ["1", "2"],
        }
    )
    answer = model.predict(rows)
    assert answer["prediction"].tolist() == ["fine", "broken"]
    assert model.metadata.signature is not None
    assert model.input_example is not None


def materialize(
    tiny: Pipeline, home: Settings, stages: list[str], **more: object
) -> tuple[dg.ExecuteInProcessResult, str]:
    """Launch assets as Dagster does, and return the result with all failure texts."""
    with prepare_instance(home) as instance:
        result = dg.materialize(
            build_assets(stages_of(tiny)),
            selection=dg.AssetSelection.assets(*([tiny.name, stage] for stage in stages)),
            instance=instance,
            resources=build_resources(home),
            raise_on_error=False,
            **more,  # type: ignore[arg-type]
        )
    failures = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    texts = [f.user_failure_data.description or "" for f in failures if f.user_failure_data]
    return result, "\n".join(texts)


def test_one_partition_can_be_launched_by_itself(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    result, _ = materialize(tiny, home, list(BATCH_STAGES), partition_key="lot-02")
    assert result.success
    events = result.get_asset_materialization_events()
    assert [e.asset_key for e in events] == [key(tiny, stage) for stage in BATCH_STAGES]
    assert all(e.partition == "lot-02" for e in events)
    features = events[-1].materialization
    assert features.metadata["cached"].value is True, "its fingerprint is known: the body does not run"
    assert features.metadata["dagster/row_count"].value == 60
    assert len(result.get_asset_check_evaluations()) == len(stages_of(tiny)["validated_batch"].checks())


def test_a_range_of_partitions_is_one_run(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    tags = {"dagster/asset_partition_range_start": "lot-02", "dagster/asset_partition_range_end": "lot-04"}
    result, _ = materialize(tiny, home, ["validated_batch", "features"], tags=tags)
    assert result.success
    seen = [(e.asset_key.path[-1], e.partition) for e in result.get_asset_materialization_events()]
    assert seen == [(stage, lot) for stage in ("validated_batch", "features") for lot in LOTS[1:4]]


def test_an_unpartitioned_asset_can_be_launched_by_itself(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    result, _ = materialize(tiny, home, ["evaluation"])
    assert result.success
    (event,) = result.get_asset_materialization_events()
    shown = event.materialization.metadata
    assert shown["accuracy"].value == cold.metrics["accuracy"]
    assert "![confusion_of_the_model](data:image/png;base64," in str(shown["report"].value)


def gates_of_the_model(settings: Settings, pipeline: Pipeline) -> list[bool]:
    """Whether the model's gates have passed, as Dagster shows it last."""
    key = dg.AssetCheckKey(dg.AssetKey([pipeline.name, "registered_model"]), "gates_passed")
    with prepare_instance(settings) as instance:
        records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        return [bool(record.event.asset_check_evaluation.passed) for record in records if record.event]  # type: ignore[union-attr]


def test_a_model_that_misses_its_gate_is_not_registered(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    strict = replace(tiny, gates=(MetricGate(metric="accuracy", at_least=1.0),))
    summary = run_pipeline(strict, home, Request(select=["evaluation", "registered_model"]))
    assert by_name(summary)["registered_model"].rejected == 1
    assert "accuracy >= 1.0 missed" in summary.problems[0]
    assert [gate.passed for gate in summary.gates] == [False]
    assert not summary.ok
    assert gates_of_the_model(home, tiny) == [False]
    back = run_pipeline(tiny, home, Request(select=["evaluation", "registered_model"]))
    assert bodies(back) == {}, "back at the earlier gates, everything is known"
    assert gates_of_the_model(home, tiny) == [True], "and told once more, or the check would stay failed in the UI"
    assert run_pipeline(tiny, home).run_id == ""
    assert back.model is not None
    assert back.model.version == "1"


def test_a_rejected_batch_stops_nobody_else_and_is_refused_everywhere(
    tiny: Pipeline, tmp_path: Path, spark: SparkSession
) -> None:
    home = fresh_settings(tmp_path / "home")
    landing = landing_of(home)
    land_samples(tiny, landing)
    bad = readings(2).set_column(3, "load", [[7.5] * 60])
    landing.put(tiny, "readings", "lot-03", bad, "csv")

    summary = run_pipeline(tiny, home, Request(select=[*BATCH_STAGES, "training_set"]))
    assert summary.problems == []
    assert list(summary.rejected) == ["lot-03"]
    assert "load" in summary.rejected["lot-03"]
    assert by_name(summary)["features"].built == 5

    with prepare_instance(home) as instance:
        chain = chain_of(stages_of(tiny), home, instance)
        assert "lot-03" not in chain.published.versions("validated_batch")
        features = chain.statuses("features", ["lot-04"])["lot-04"]
        assert features.work is not None
        assert set(features.work.inputs) == {"validated_batch/lot-04", "validated_batch/lot-02"}
        training_set = chain.statuses("training_set")[""].manifest
        assert training_set is not None
        assert training_set.facts["left_out"].keys() == {"lot-03"}

    result, text = materialize(tiny, home, ["features"], partition_key="lot-03")
    assert not result.success
    assert "lot-03 was rejected" in text
    assert "Land the batch again" in text
    assert result.get_asset_materialization_events() == []

    landing.put(tiny, "readings", "lot-03", readings(2), "csv")
    mended = run_pipeline(tiny, home, Request(select=[*BATCH_STAGES, "training_set"]))
    assert mended.rejected == {}
    assert bodies(mended) == {"raw_batch": 1, "validated_batch": 1, "features": 2, "training_set": 1}


def test_a_registry_that_lost_its_version_gets_it_back(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.models import champion

    own = fresh_settings(tmp_path / "own", store=home.store, landing=home.landing)
    assert run_pipeline(tiny, own).model is not None
    assert bodies(run_pipeline(tiny, own)) == {}
    Connection(own.mlflow).client.delete_registered_model_alias("tiny", "champion")
    assert champion(Connection(own.mlflow), "tiny") is None
    assert by_name(run_pipeline(tiny, own))["registered_model"].cached == 1
    assert champion(Connection(own.mlflow), "tiny") is not None


def test_an_evaluation_that_comes_out_otherwise_opens_the_gate_anew(
    home: Settings, cold: RunSummary, tiny: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_platform.evaluation import metrics
    from ml_platform.stages.evaluation import Evaluation
    from ml_platform.versions.code import code_version

    real = metrics.compute
    monkeypatch.setattr(metrics, "compute", lambda *args: {**real(*args), "accuracy": 0.1})
    monkeypatch.setattr(Evaluation, "code", lambda self: code_version((), params={"changed": True}))
    summary = run_pipeline(tiny, home)
    assert by_name(summary)["registered_model"].rejected == 1
    assert summary.model is None, "what was registered before is not this run's"
    monkeypatch.undo()
    assert bodies(run_pipeline(tiny, home)) == {}


def test_storage_options_are_not_shown_by_dagster(home: Settings) -> None:
    options = {"s3": {"key": "someone", "secret": "do-not-tell"}}
    settings = home.model_copy(update={"storage_options": options})
    platform = build_resources(settings)["platform"]
    assert "do-not-tell" not in str(platform.settings)
    assert platform.typed() == settings


def test_days_that_break_the_feature_function_stop_no_others(
    tiny: Pipeline, tmp_path: Path, spark: SparkSession
) -> None:
    home = fresh_settings(tmp_path / "home")
    land_samples(tiny, landing_of(home))
    function = "ml_platform_tests.stages.feature_functions:breaks_on_two_lots"
    fragile = replace(tiny, features=replace(tiny.features, function=function))
    summary = run_pipeline(fragile, home, Request(select=[*BATCH_STAGES, "training_set"]))
    assert by_name(summary)["features"].built == 4
    assert by_name(summary)["features"].failed == 2
    assert not summary.ok
    assert "lot-02" in summary.problems[0]
    assert "lot-05" in summary.problems[0]
