"""A batch is compared with the accepted ones before it, whoever materializes it and in whichever run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_platform.gates import batch as batch_gate
from ml_platform.gates.declaration import BatchGate
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import State, Status
from ml_platform.stages.history import profile_file
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.plan import make_plan
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.waiving import waive
from ml_platform.stages.withdrawing import withdraw
from ml_platform.store.manifest import Manifest
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOTS = [f"lot-{number:02d}" for number in range(1, 9)]
DRIFTED = LOTS[5]
LEAST = 3


@pytest.fixture(scope="module")
def judging(tiny: Pipeline) -> Pipeline:
    """The tiny pipeline, comparing from the fourth lot on."""
    return replace(tiny, batch_gate=BatchGate(least=LEAST, history=5))


@pytest.fixture
def place(tmp_path: Path, judging: Pipeline) -> Settings:
    """A home where eight lots have landed, one of them with a tenth of the usual vibration."""
    settings = fresh_settings(tmp_path / "home")
    for number, lot in enumerate(LOTS):
        land(judging, settings, lot, made(number, faulty=lot == DRIFTED))
    return settings


def made(number: int, *, faulty: bool = False) -> pa.Table:
    table = readings(number, rows=200)
    return table if not faulty else table.set_column(4, "vibration", pc.divide(table["vibration"], 10))


def land(pipeline: Pipeline, settings: Settings, lot: str, table: pa.Table) -> None:
    landing_of(settings).put(pipeline, "readings", lot, table, "csv")


def run(pipeline: Pipeline, settings: Settings, *, batches: list[str] | None = None, upto: int = 2) -> RunSummary:
    stages = ["raw_batch", "validated_batch", "features", "training_set"][:upto]
    return run_pipeline(pipeline, settings, Request(select=stages, batches=batches))


def validated(pipeline: Pipeline, settings: Settings) -> dict[str, Status]:
    return chain_of(stages_of(pipeline), settings).statuses("validated_batch")


def manifest(pipeline: Pipeline, settings: Settings, lot: str) -> Manifest:
    found = validated(pipeline, settings)[lot].manifest
    assert found is not None
    return found


def checks(manifest: Manifest) -> dict[str, dict[str, object]]:
    return {check["name"]: check for check in manifest.facts["checks"]}


def test_a_batch_that_is_not_like_those_before_it_is_rejected_and_never_becomes_normal(
    judging: Pipeline, place: Settings
) -> None:
    summary = run(judging, place)

    assert list(summary.rejected) == [DRIFTED]
    assert "vibration" in summary.rejected[DRIFTED]
    assert not checks(manifest(judging, place, DRIFTED))["drift"]["passed"]
    assert manifest(judging, place, LOTS[0]).facts["compared with"] == []
    assert manifest(judging, place, LOTS[4]).facts["compared with"] == LOTS[:4]
    assert manifest(judging, place, LOTS[7]).facts["compared with"] == [*LOTS[1:5], LOTS[6]]


def test_its_profile_and_its_report_are_kept(judging: Pipeline, place: Settings) -> None:
    run(judging, place)

    names = {file.name for file in manifest(judging, place, DRIFTED).files}
    assert {"report.json", profile_file("readings")} <= names
    assert "readings.parquet" not in names, "a rejected batch has no rows to read"


def test_features_of_a_rejected_batch_are_refused_and_the_others_go_on(
    judging: Pipeline, place: Settings, spark: SparkSession
) -> None:
    run(judging, place)

    alone = run_pipeline(judging, place, Request(select=["features"], batches=[DRIFTED]))
    assert alone.problems
    assert "was rejected" in str(alone.problems)
    assert "ml-platform waive" in str(alone.problems)
    assert not run(judging, place, upto=4).problems
    chain = chain_of(stages_of(judging), place)
    assert sorted(chain.published.versions("features")) == [lot for lot in LOTS if lot != DRIFTED]


def test_one_that_was_judged_with_nothing_before_it_is_judged_again_once_there_is(
    judging: Pipeline, tmp_path: Path
) -> None:
    settings = fresh_settings(tmp_path / "home")
    land(judging, settings, DRIFTED, made(5, faulty=True))
    assert not run(judging, settings).rejected, "with nothing to compare it with it passes"

    for number in range(LEAST):
        land(judging, settings, LOTS[number], made(number))
    assert validated(judging, settings)[DRIFTED].state is State.FRESH, "nothing else was taken yet"
    chain = chain_of(stages_of(judging), settings)
    chain.planning = True
    plan = {stage.name: stage for stage in make_plan(chain)}["validated_batch"]
    assert f"there are enough batches before {DRIFTED} to compare with" in list(map(str, plan.causes))
    assert list(run(judging, settings).rejected) == [DRIFTED]


def test_one_before_which_too_many_turned_out_bad_is_judged_again_once_there_are_enough(
    judging: Pipeline, tmp_path: Path
) -> None:
    settings = fresh_settings(tmp_path / "home")
    for number, lot in enumerate(LOTS[:4]):
        land(judging, settings, lot, made(number, faulty=lot == LOTS[3]))
    land(judging, settings, LOTS[1], made(1).set_column(3, "load", [[7.5] * 200]))

    assert list(run(judging, settings).rejected) == [LOTS[1]], "with two accepted before it the fourth passes"
    again = run(judging, settings)
    assert not any(stage.built for stage in again.stages), "nothing has changed"
    land(judging, settings, LOTS[1], made(1))
    assert list(run(judging, settings).rejected) == [LOTS[3]]


def test_withdrawing_others_opens_no_door(judging: Pipeline, place: Settings) -> None:
    assert list(run(judging, place).rejected) == [DRIFTED]
    for lot in LOTS[:4]:
        withdraw(chain_of(stages_of(judging), place), lot, by="ada", reason="a test run")

    assert list(run(judging, place).rejected) == [DRIFTED]


def test_a_batch_at_which_the_gate_itself_fails_stops_no_other(
    judging: Pipeline, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = batch_gate.look

    def faulty(*args: Any, batch: str, **more: Any) -> Any:
        if batch == LOTS[2]:
            raise pl.exceptions.PanicException("a fault of a library")
        return whole(*args, batch=batch, **more)

    monkeypatch.setattr(batch_gate, "look", faulty)
    summary = run(judging, place)
    gate = summary.stages[1]
    assert (gate.built, gate.rejected, gate.failed) == (6, 1, 1)
    assert LOTS[2] in str(summary.problems)


def test_a_verdict_stays_when_an_earlier_batch_changes(judging: Pipeline, place: Settings) -> None:
    run(judging, place)
    land(judging, place, LOTS[1], made(21))

    summary = run(judging, place)
    built = {stage.name: stage.built for stage in summary.stages}
    assert built == {"raw_batch": 1, "validated_batch": 1}


def test_the_same_rows_under_another_name_are_rejected(judging: Pipeline, place: Settings) -> None:
    run(judging, place)
    land(judging, place, "lot-09", made(2))

    summary = run(judging, place)
    assert list(summary.rejected) == [DRIFTED, "lot-09"]
    assert LOTS[2] in summary.rejected["lot-09"]


def test_a_late_batch_that_repeats_a_later_one_is_rejected(judging: Pipeline, place: Settings) -> None:
    run(judging, place)
    land(judging, place, "lot-00", made(2))

    assert run(judging, place).rejected.keys() == {DRIFTED, "lot-00"}, "the one that was accepted first stays"


def test_a_waived_batch_is_taken_in_with_its_failed_check_as_a_warning(judging: Pipeline, place: Settings) -> None:
    run(judging, place)
    chain = chain_of(stages_of(judging), place)
    waive(chain, DRIFTED, by="ada", reason="another gauge")

    assert not run(judging, place).rejected
    found = manifest(judging, place, DRIFTED)
    assert found.verdict == "waived"
    assert checks(found)["drift"]["warn"]
    assert "readings.parquet" in {file.name for file in found.files}


def test_a_withdrawn_batch_is_not_compared_with(judging: Pipeline, place: Settings) -> None:
    chain = chain_of(stages_of(judging), place)
    run(judging, place, batches=LOTS[:5])
    withdraw(chain, LOTS[4], by="ada", reason="a test run of the machine")

    run(judging, place)
    assert LOTS[4] not in manifest(judging, place, LOTS[7]).facts["compared with"]


def test_rows_that_break_a_rule_are_set_aside_up_to_the_limit(judging: Pipeline, place: Settings) -> None:
    (source,) = judging.sources
    lenient = replace(judging, sources=(replace(source, quarantine=0.05),))
    table = made(7)
    load = pc.if_else(pa.array([row < 6 for row in range(200)]), 9.0, table["load"])
    land(lenient, place, LOTS[7], table.set_column(3, "load", load))

    summary = run(lenient, place)
    assert LOTS[7] not in summary.rejected
    found = manifest(lenient, place, LOTS[7])
    store = chain_of(stages_of(lenient), place).store
    valid = pl.read_parquet(store.path(found.file("readings.parquet")))
    aside = pl.read_parquet(store.path(found.file("quarantine/readings.parquet")))
    assert found.facts["quarantined"] == {"readings": 6}
    assert (valid.height, aside.height) == (194, 6)
    came = set(table["reading"].to_pylist())
    assert set(valid["reading"]) | {int(text) for text in aside["reading"]} == came, "of a CSV file they are as landed"
    assert checks(found)["values"]["warn"]
    assert LOTS[7] in run(judging, place).rejected, "the limit is 0 unless a source has one"


def test_a_batch_does_not_pass_uncompared_where_another_version_profiled_those_before_it(
    judging: Pipeline, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("ml_platform.gates.profile.FORMAT", 0)
        assert not run(judging, place, batches=LOTS[:5]).problems

    told = str(run(judging, place, batches=[DRIFTED]).problems)
    assert "accepted by another version of the platform" in told
    assert "ml-platform run tiny" in told
    assert DRIFTED not in chain_of(stages_of(judging), place).published.versions("validated_batch")


def test_a_source_that_is_judged_on_spark_comes_to_the_same_artifacts(
    judging: Pipeline, place: Settings, tmp_path: Path, spark: SparkSession
) -> None:
    run(judging, place)
    (source,) = judging.sources
    on_spark = replace(judging, sources=(replace(source, engine="spark"),))
    other = fresh_settings(tmp_path / "other", landing=place.landing)

    assert list(run(on_spark, other, batches=LOTS[:6]).rejected) == [DRIFTED]
    for lot in LOTS[:6]:
        one, same = manifest(judging, place, lot), manifest(on_spark, other, lot)
        assert (one.data_version, one.fingerprint) == (same.data_version, same.fingerprint)
        kept = [[file for file in each.files if file.name != "report.json"] for each in (one, same)]
        assert kept[0] == kept[1]
