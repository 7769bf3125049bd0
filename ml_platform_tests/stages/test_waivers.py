"""A rejected batch is accepted by a person, taken in, and left out again when the waiver is revoked or expires."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ml_platform.errors import RefusedError
from ml_platform.gates.waivers import Waiver, Waivers, iso
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline, Reference
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain, State
from ml_platform.stages.difference import counted
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.plan import StagePlan, make_plan
from ml_platform.stages.resources import build_resources
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.waive_job import build_waive_job
from ml_platform.stages.waiving import revoke, state, waive
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import BATCH_STAGES, bodies, by_name, key
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UP_TO_THE_TRAINING_SET = Request(select=[*BATCH_STAGES, "training_set"])
BAD = "lot-03"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline, spark: SparkSession) -> Settings:
    """A home where one lot was rejected: its loads are out of range. Each test leaves it so."""
    settings = fresh_settings(tmp_path_factory.mktemp("waivers") / "home")
    landing = landing_of(settings)
    land_samples(tiny, landing)
    landing.put(tiny, "readings", BAD, readings(2).set_column(3, "load", [[7.5] * 60]), "csv")
    assert list(run(tiny, settings).rejected) == [BAD]
    return settings


def run(pipeline: Pipeline, settings: Settings) -> RunSummary:
    summary = run_pipeline(pipeline, settings, UP_TO_THE_TRAINING_SET)
    assert not summary.problems
    return summary


def opened(pipeline: Pipeline, settings: Settings) -> Chain:
    return chain_of(stages_of(pipeline), settings)


def planned(pipeline: Pipeline, settings: Settings) -> dict[str, StagePlan]:
    chain = opened(pipeline, settings)
    chain.planning = True
    return {stage.name: stage for stage in make_plan(chain)}


def test_a_waived_batch_is_taken_in_and_left_out_again_when_that_is_revoked(tiny: Pipeline, place: Settings) -> None:
    given = waive(opened(tiny, place), BAD, by="Ada", reason="the scale was changed", expires="30d")
    assert "load" in given.said

    plan = planned(tiny, place)
    assert plan["validated_batch"].stale == [BAD]
    assert list(map(str, plan["validated_batch"].causes)) == [f"{BAD} was waived"]
    assert plan["validated_batch"].rejected == {}
    assert not plan["raw_batch"].to_do
    assert set(plan["features"].may) <= {BAD, "lot-04"}, "its own features, and those that look back on it"

    taken = run(tiny, place)
    assert taken.rejected == {}
    assert bodies(taken) == {"validated_batch": 1, "features": 2, "training_set": 1}
    chain = opened(tiny, place)
    manifest = chain.statuses("validated_batch", [BAD])[BAD].manifest
    assert manifest is not None
    assert manifest.verdict == "waived"
    assert manifest.inputs["waiver"] == given.id
    assert manifest.facts["rows"] == {"readings": 60}
    assert {c["name"]: c["warn"] for c in manifest.facts["checks"] if not c["passed"]} == {"values": True}
    training_set = chain.statuses("training_set")[""].manifest
    assert training_set is not None
    assert training_set.facts["left_out"] == {}
    (who,) = training_set.facts["waived"].values()
    assert (who["by"], who["reason"], who["id"]) == ("Ada", "the scale was changed", given.id)
    told = chain.stages["training_set"].metadata(chain, training_set)
    assert str(told["waived batches"]) == f"{BAD} (by Ada: the scale was changed)"
    assert bodies(run(tiny, place)) == {}

    revoke(opened(tiny, place), BAD, by="Bo", reason="it was not")
    refused = opened(tiny, place).settled("training_set", [""])[""]
    assert isinstance(refused, str), "nobody trains on it, not even by hand"
    assert "a waiver that was revoked or has expired" in refused
    plan = planned(tiny, place)
    assert list(plan["validated_batch"].rejected) == [BAD]
    assert not plan["validated_batch"].to_do
    assert plan["training_set"].known == [""], "the one from before is remembered"
    back = run(tiny, place)
    assert list(back.rejected) == [BAD]
    assert bodies(back) == {}
    assert by_name(back)["training_set"].cached == 1
    (entry,) = opened(tiny, place).waivers.entries()
    assert "revoked by Bo" in state(opened(tiny, place), entry)
    _dagster_shows_all_of_it(tiny, place)


def _dagster_shows_all_of_it(tiny: Pipeline, place: Settings) -> None:
    with prepare_instance(place) as instance:
        materialized = instance.fetch_materializations(
            dg.AssetRecordsFilter(key(tiny, "validated_batch"), asset_partitions=[BAD]), limit=1
        ).records[0]
        shown = materialized.asset_materialization
        assert shown is not None
        assert str(shown.metadata["waived because"].value) == "the scale was changed"
        observed = instance.fetch_observations(
            dg.AssetRecordsFilter(key(tiny, "validated_batch"), asset_partitions=[BAD]), limit=9
        ).records
        assert len(observed) == 2, "rejected at first, and again after the waiver was revoked"
        assert observed[0].storage_id > materialized.storage_id
        check = dg.AssetCheckKey(key(tiny, "validated_batch"), "values")
        history = instance.event_log_storage.get_asset_check_execution_history(check, limit=99)
        severities = [e.event.dagster_event.event_specific_data.severity for e in history if _of(e, BAD)]  # type: ignore[union-attr]
        assert severities == [dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR]


def _of(record: object, partition: str) -> bool:
    evaluation = record.event.dagster_event.event_specific_data  # type: ignore[attr-defined]
    return bool(evaluation.partition == partition)


def test_a_waiver_that_is_over_opens_nothing(tiny: Pipeline, place: Settings) -> None:
    chain = opened(tiny, place)
    version = chain.published.versions("raw_batch")[BAD]
    before = chain.waivers.now - dt.timedelta(days=31)
    over = Waiver(
        pipeline="tiny",
        stage="validated_batch",
        batch=BAD,
        data_version=version,
        by="Ada",
        reason="for a month",
        when=iso(before),
        expires=iso(before + dt.timedelta(days=30)),
    )
    Waivers(chain.store, "tiny", before).add(over)
    then = opened(tiny, place)
    then.waivers = Waivers(then.store, "tiny", before + dt.timedelta(days=29))
    assert then.statuses("validated_batch", [BAD])[BAD].state is State.STALE, "while it holds it is to be taken in"
    assert opened(tiny, place).statuses("validated_batch", [BAD])[BAD].state is State.REJECTED
    assert bodies(run(tiny, place)) == {}
    after = opened(tiny, place)
    assert "expired" in [state(after, entry) for entry in after.waivers.entries()]
    with pytest.raises(RefusedError, match="no waiver to revoke"):
        revoke(after, BAD, by="Bo", reason="it is over")


def test_what_a_rejected_batch_would_not_build_is_not_counted_as_stale(tiny: Pipeline, place: Settings) -> None:
    found, unknown = counted(tiny, place)
    assert not unknown
    assert {name: found[name][0] for name in BATCH_STAGES} == {"raw_batch": 6, "validated_batch": 6, "features": 5}
    beside = place.model_copy(update={"home": Path(str(place.home)[:-1])})
    assert counted(tiny, beside)[0] == found, "not there itself, but the store and the landing place are"


def test_only_what_the_gate_rejected_can_be_waived(tiny: Pipeline, place: Settings) -> None:
    def refused(batch: str, says: str, **words: str) -> None:
        with pytest.raises(RefusedError, match=says):
            waive(opened(tiny, place), batch, **{"by": "Ada", "reason": "why not", **words})

    refused("lot-01", "not rejected")
    refused("lot-99", "no such batch")
    refused(BAD, "who gives it", by=" ")
    refused(BAD, "says why", reason="")
    refused(BAD, "over before it began", expires="2020-01-01")
    refused(BAD, "No waiver opens this stage", stage="features")
    refused("", "batch is missing")
    landing = landing_of(place)
    landing.put(tiny, "readings", "lot-07", readings(7), "csv")
    refused("lot-07", "since the gate last looked")
    landing.put(tiny, "readings", "lot-07", readings(7).drop_columns(["load"]), "csv")
    run(tiny, place)
    refused("lot-07", "cannot be waived")


def test_the_waiver_does_not_cover_what_lands_later(tiny: Pipeline, place: Settings) -> None:
    landing = landing_of(place)
    worse = readings(2).set_column(3, "load", [[9.5] * 60])
    waive(opened(tiny, place), BAD, by="Ada", reason="the scale was changed")
    with pytest.raises(RefusedError, match="not taken in yet"):
        waive(opened(tiny, place), BAD, by="Bo", reason="as she says")
    landing.put(tiny, "readings", BAD, worse, "csv")
    assert BAD in run(tiny, place).rejected
    chain = opened(tiny, place)
    assert [state(chain, entry) for entry in chain.waivers.entries()][-1] == "not used: other data is there"
    with pytest.raises(RefusedError, match=r"(?s)was rejected.*ml-platform waive tiny lot-03"):
        chain.input_manifests([f"validated_batch/{BAD}"])
    landing.put(tiny, "readings", BAD, readings(2).set_column(3, "load", [[7.5] * 60]), "csv")
    assert BAD not in run(tiny, place).rejected, "the earlier bytes are back, and so is what was said of them"
    with pytest.raises(RefusedError, match=r"(?s)waived already.*Ada"):
        waive(opened(tiny, place), BAD, by="Bo", reason="as she says")
    revoke(opened(tiny, place), BAD, by="Ada", reason="I was wrong")


def test_a_person_waives_from_dagsters_launchpad(tiny: Pipeline, place: Settings) -> None:
    def launch(**config: object) -> dg.ExecuteInProcessResult:
        with prepare_instance(place) as instance:
            return build_waive_job(stages_of(tiny)).execute_in_process(
                instance=instance,
                resources=build_resources(place),
                run_config={"ops": {"tiny_waiver": {"config": {"batch": BAD, "by": "Ada", **config}}}},
                raise_on_error=False,
            )

    assert launch(reason="seen in the UI").success
    assert opened(tiny, place).statuses("validated_batch", [BAD])[BAD].state is State.STALE
    failed = launch(reason="once more")
    assert not failed.success
    (failure,) = [event.step_failure_data for event in failed.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert "waived already" in (failure.user_failure_data.description or "")
    assert launch(reason="seen again", revoke=True).success
    assert opened(tiny, place).statuses("validated_batch", [BAD])[BAD].state is State.REJECTED


def test_a_reference_is_waived_and_shut_out_again(tiny: Pipeline, tmp_path: Path) -> None:
    feed = Reference(name="machines", schema="ml_platform_tests.tiny_pipeline.schema:Readings", format="csv")
    pipeline = replace(tiny, references=(feed,))
    settings = fresh_settings(tmp_path / "home")
    bad = readings(2).set_column(3, "load", [[7.5] * 60])
    landing_of(settings).put(pipeline, "references", "machines", bad, "csv")
    request = Request(select=["machines"])
    assert by_name(run_pipeline(pipeline, settings, request))["machines"].rejected == 1
    refused = opened(pipeline, settings).settled("machines", [""])[""]
    assert isinstance(refused, str)
    assert "ml-platform waive tiny --stage machines" in refused
    waive(opened(pipeline, settings), "", by="Ada", reason="it is right", stage="machines")
    assert bodies(run_pipeline(pipeline, settings, request)) == {"machines": 1}
    assert not isinstance(opened(pipeline, settings).settled("machines", [""])[""], str)
    revoke(opened(pipeline, settings), "", by="Ada", reason="it was not", stage="machines")
    shut = opened(pipeline, settings).settled("machines", [""])[""]
    assert isinstance(shut, str), "what is published was let in by a waiver that is gone"
    assert "was rejected" in shut
