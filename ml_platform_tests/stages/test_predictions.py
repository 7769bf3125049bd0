"""Every accepted batch is scored by the champion of the moment, once; nothing else changes what was said of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from ml_platform.automation.needed import needed
from ml_platform.automation.runs import batch_part
from ml_platform.batch_scoring import BatchScoring
from ml_platform.definitions import build_definitions
from ml_platform.errors import DeclarationError
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import MetricGate
from ml_platform.stages import stages_of
from ml_platform.stages.features import parts
from ml_platform.stages.impact import impact_of
from ml_platform.stages.opening import chain_of, landing_of, store_of
from ml_platform.stages.plan import StagePlan
from ml_platform.stages.run import Request, plan_pipeline, run_pipeline
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.stages.conftest import BATCH_STAGES, LOTS, bodies, by_name, key
from ml_platform_tests.stages.test_chain import materialize
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.summary import RunSummary
    from ml_platform.store.manifest import Manifest

PREDICTIONS = "predictions"
REJECTED = "lot-03"


@dataclass
class Place:
    """A pipeline that scores its batches, in a home of its own."""

    pipeline: Pipeline
    settings: Settings

    def run(self, *stages: str, **more: Any) -> RunSummary:
        return run_pipeline(self.pipeline, self.settings, Request(select=list(stages) or None, **more))

    def plan(self) -> StagePlan:
        return next(stage for stage in plan_pipeline(self.pipeline, self.settings) if stage.name == PREDICTIONS)

    def published(self) -> dict[str, Manifest]:
        chain = chain_of(stages_of(self.pipeline), self.settings)
        found = chain.statuses(PREDICTIONS)
        return {batch: status.manifest for batch, status in found.items() if status.manifest is not None}

    def versions(self) -> dict[str, str]:
        """MLflow's version of the model that has scored each batch."""
        return {batch: manifest.facts["model_version"] for batch, manifest in self.published().items()}

    def table(self, batch: str) -> pa.Table:
        store = chain_of(stages_of(self.pipeline), self.settings).store
        return pq.read_table(store.path(self.published()[batch].file("predictions.parquet")))

    def point(self, version: str) -> None:
        """Let a person make another version the champion."""
        from ml_platform.registry.connection import Connection
        from ml_platform.registry.promotion import Promotions

        promotions = Promotions(Connection(self.settings.mlflow), store_of(self.settings), self.pipeline.name)
        promotions.promote(version, by="a test", reason="to see who scores")


@pytest.fixture(scope="module")
def scored(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Place, RunSummary]:
    """The first run with scoring, where all else was done before. The registry is a new one."""
    assert cold.ok
    folder = tmp_path_factory.mktemp("scored") / "home"
    shutil.copytree(home.home, folder, symlinks=True, ignore=shutil.ignore_patterns("mlflow"))
    place = Place(replace(tiny, scoring=BatchScoring()), fresh_settings(folder))
    return place, place.run()


def test_each_accepted_batch_is_scored_and_says_by_which_model(scored: tuple[Place, RunSummary]) -> None:
    place, first = scored
    assert first.ok, first.problems
    assert bodies(first) == {"registered_model": 1, PREDICTIONS: 6}
    assert place.versions() == dict.fromkeys(LOTS, "1")
    table = place.table("lot-03")
    assert table.column_names[:2] == ["batch", "reading"]
    assert set(table.column("model_version").to_pylist()) == {"1"}
    assert table.schema.metadata[b"ml_platform.model_version"] == b"1"
    store = chain_of(stages_of(place.pipeline), place.settings).store
    chain = chain_of(stages_of(place.pipeline), place.settings)
    features = chain.statuses("features")["lot-03"].manifest
    assert features is not None
    assert table.num_rows == sum(pq.read_metadata(path).num_rows for path in store.paths(parts(features)))


def test_scores_are_those_of_the_evaluation(scored: tuple[Place, RunSummary]) -> None:
    place, _ = scored
    chain = chain_of(stages_of(place.pipeline), place.settings)
    evaluation = chain.published_artifact("evaluation")
    assert evaluation is not None
    evaluated = pq.read_table(chain.store.path(evaluation.file("predictions.parquet"))).to_pandas()
    for batch, rows in evaluated.groupby("batch"):
        own = place.table(str(batch)).to_pandas().set_index("reading")
        rows = rows.set_index("reading")
        for name in [name for name in rows.columns if name.startswith("score_")]:
            said = own.loc[rows.index, name.replace("score_", "probability_")]
            assert (said - rows[name]).abs().max() < 1e-6


def test_nothing_is_to_do_then_and_no_torch_is_imported(scored: tuple[Place, RunSummary]) -> None:
    place, _ = scored
    assert not [stage for stage in plan_pipeline(place.pipeline, place.settings) if stage.to_do]
    assert bodies(place.run()) == {}
    code = (
        "import sys; from dataclasses import replace; from ml_platform.batch_scoring import BatchScoring\n"
        "from ml_platform.settings import Settings; from ml_platform.stages.run import run_pipeline\n"
        "from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE\n"
        "summary = run_pipeline(replace(PIPELINE, scoring=BatchScoring()), Settings(settle_seconds=0))\n"
        "print(summary.run_id, [name for name in ('torch', 'mlflow', 'dagster') if name in sys.modules])"
    )
    home = {**os.environ, "ML_PLATFORM_HOME": str(place.settings.home)}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dagster_shows_each_batch_fresh_with_its_model(scored: tuple[Place, RunSummary]) -> None:
    from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

    place, _ = scored
    graph = build_definitions([place.pipeline], place.settings).resolve_asset_graph()
    assert graph.get(key(place.pipeline, PREDICTIONS)).parent_keys == {key(place.pipeline, "features")}
    with prepare_instance(place.settings) as instance:
        records = instance.fetch_materializations(key(place.pipeline, PREDICTIONS), limit=10).records
        assert {record.partition_key for record in records} == set(LOTS)
        assert all(record.asset_materialization.metadata["model_version"].value == "1" for record in records)
        resolver = CachingStaleStatusResolver(instance, graph, loading_context=_loading(instance))
        found = {resolver.get_status(key(place.pipeline, PREDICTIONS), lot) for lot in LOTS}
    assert found == {StaleStatus.FRESH}


def _loading(instance: dg.DagsterInstance) -> Any:
    from dagster._core.workspace.context import LoadingContext

    class Loading(LoadingContext):
        instance = property(lambda self: instance)
        loaders: dict[Any, Any] = {}  # noqa: RUF012

    return Loading()


def test_who_scores_what(scored: tuple[Place, RunSummary]) -> None:
    place, _ = scored
    landing, batches = landing_of(place.settings), [*BATCH_STAGES, PREDICTIONS]

    # A rejected batch has no predictions, and one that looks back on it changes. A new model comes of it.
    landing.put(place.pipeline, "readings", REJECTED, readings(2).set_column(3, "load", [[7.5] * 60]), "csv")
    summary = place.run()
    assert summary.ok, summary.problems
    assert by_name(summary)[PREDICTIONS].built == 1
    expected = {lot: "2" if lot == "lot-04" else "1" for lot in LOTS if lot != REJECTED}
    assert place.versions() == expected

    # What is new is scored by the champion of now; what was scored stays as it is.
    landing.put(place.pipeline, "readings", "lot-07", readings(7), "csv")
    assert bodies(place.run(*batches)) == dict.fromkeys(batches, 1)
    expected["lot-07"] = "2"
    assert place.versions() == expected

    # After a rollback it is the earlier one again, even in a run whose own model is refused.
    place.point("1")
    landing.put(place.pipeline, "readings", "lot-08", readings(8), "csv")
    strict = replace(place, pipeline=replace(place.pipeline, gates=(MetricGate(metric="accuracy", at_least=0.9999),)))
    refused = strict.run(*BATCH_STAGES, "evaluation", "registered_model", PREDICTIONS)
    assert [problem for problem in refused.problems if "accuracy" in problem]
    assert by_name(refused)[PREDICTIONS].built == 1
    expected["lot-08"] = "1"
    assert place.versions() == expected
    assert not place.plan().to_do

    # Asked to, it scores all that another model has scored; what is known of history is not scored again.
    again = replace(place, pipeline=replace(place.pipeline, scoring=BatchScoring(rescore=True)))
    only = plan_pipeline(again.pipeline, place.settings, Request(select=[PREDICTIONS]))
    assert (only[0].stale, [str(cause) for cause in only[0].causes]) == (
        ["lot-04", "lot-07"],
        ["there is another champion"],
    )
    assert bodies(again.run(PREDICTIONS)) == {PREDICTIONS: 2}
    assert set(again.versions().values()) == {"1"}
    place.point("2")
    done = by_name(again.run(PREDICTIONS))[PREDICTIONS]
    assert (done.built, done.cached) == (5, 2)
    assert set(place.versions().values()) == {"2"}
    assert place.run(PREDICTIONS).run_id == ""


def test_without_a_champion_batches_wait_and_the_run_is_none_the_worse(scored: tuple[Place, RunSummary]) -> None:
    place, _ = scored
    elsewhere = place.settings.model_copy(update={"mlflow": f"sqlite:///{place.settings.home}/none/mlflow.db"})
    fresh = Place(replace(place.pipeline, scoring=BatchScoring(rescore=True)), elsewhere)
    assert fresh.plan().may, "the model that the run registers may be the champion"
    summary = fresh.run(PREDICTIONS)
    assert summary.ok
    assert "no champion yet" in by_name(summary)[PREDICTIONS].detail


def test_one_batch_is_scored_from_the_ui(scored: tuple[Place, RunSummary]) -> None:
    place, _ = scored
    result, text = materialize(place.pipeline, place.settings, [PREDICTIONS], partition_key="lot-02")
    assert result.success, text
    (event,) = result.get_asset_materialization_events()
    assert event.partition == "lot-02"
    result, text = materialize(place.pipeline, place.settings, [PREDICTIONS], partition_key=REJECTED)
    assert not result.success
    assert "was rejected" in text


def test_what_it_rests_on_is_found_and_kept(scored: tuple[Place, RunSummary]) -> None:
    place, _ = scored
    chain = chain_of(stages_of(place.pipeline), place.settings)
    reached = impact_of(chain, "lot-01").artifacts[PREDICTIONS]
    assert {each.manifest.batch for each in reached} >= {"lot-01", "lot-06"}, "the model has learned from it"
    kept = needed(place.settings, chain.store, chain.store.artifacts(place.pipeline.name, PREDICTIONS))
    names = {name for _, name in kept.names}
    assert {manifest.data_version for manifest in place.published().values()} <= names


def test_the_stage_is_there_where_it_is_declared(tiny: Pipeline) -> None:
    assert PREDICTIONS not in stages_of(tiny)
    with pytest.raises(DeclarationError, match="rescore"):
        BatchScoring(rescore="yes")  # type: ignore[arg-type]
    again = replace(tiny, scoring=BatchScoring(rescore=True), versions={PREDICTIONS: "1"})
    assert batch_part(stages_of(again)) == [*BATCH_STAGES, PREDICTIONS], "trained by the calendar, scored every day"
    graph = build_definitions([again], fresh_settings(Path("nowhere"))).resolve_asset_graph()
    parents = {key(tiny, "features"), key(tiny, "registered_model")}
    assert graph.get(key(tiny, PREDICTIONS)).parent_keys == parents
