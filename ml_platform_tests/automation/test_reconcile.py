"""What is stale is repaired without anybody's doing, and what cannot be is left alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.automation.reconcile import STALE_TAG
from ml_platform.dead_runs import PROCESS_TAG
from ml_platform.errors import PlatformError
from ml_platform.failures import FAILURE_TAG
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Automation, NewData, Pipeline, Reconcile, Retrain
from ml_platform.processes import this_process
from ml_platform.settings import Settings
from ml_platform_tests.automation.conftest import Desk

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
STARTED, CANCELED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELED


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds by which the sensor's clock is ahead."""
    ahead = [0.0]
    real = time.time
    monkeypatch.setattr("ml_platform.automation.reconcile.time.time", lambda: real() + ahead[0])
    return ahead


@pytest.fixture
def stale(quick: Pipeline, settings: Settings) -> Iterator[Desk]:
    """A batch that was taken, and whose later stages are to do: as after a run that died there."""
    with prepare_instance(settings) as instance:
        desk = Desk(replace(quick, automation=Automation(reconcile=Reconcile(retries=2))), settings, instance)
        desk.land("lot-01", age=7200)
        desk.take()
        yield desk


def why(desk: Desk) -> str:
    result = desk.tick("reconcile")
    reason = result if isinstance(result, dg.SkipReason) else result.skip_reason
    assert reason is not None
    return str(reason.skip_message)


def repair(desk: Desk) -> dg.RunRequest:
    request = desk.asked("reconcile")
    assert request is not None
    return request


def test_with_nothing_to_do_nothing_is_done(desk: Desk) -> None:
    assert why(desk) == "Nothing is stale."


def test_what_is_stale_at_two_looks_is_repaired_in_one_run(stale: Desk, clock: list[float]) -> None:
    assert "a run is started in" in why(stale)
    clock[0] = 300
    lost = stale.asked("reconcile", commit=False)
    request = repair(stale)
    assert lost is not None
    assert lost.run_key == request.run_key, "after a crash the same run is asked for"
    assert request.run_config["batches"] == ["lot-01"]
    assert set(request.run_config["stages"]) > {"validated_batch", "features", "registered_model"}
    run_id = stale.run(request, STARTED, **{PROCESS_TAG: this_process().to_text()})
    assert why(stale) == f"Run {run_id[:8]} is at it."


def test_a_run_whose_process_is_gone_is_marked_and_resumed_after_a_pause(stale: Desk, clock: list[float]) -> None:
    why(stale)
    clock[0] = 300
    gone = replace(this_process(), started="1").to_text()
    run_id = stale.run(repair(stale), STARTED, **{PROCESS_TAG: gone})
    assert "tried again in" in why(stale)
    run = stale.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == FAILURE
    clock[0] += 100
    assert repair(stale).run_config["batches"] == ["lot-01"]


def test_passing_failures_are_retried_up_to_the_limit(stale: Desk, clock: list[float]) -> None:
    why(stale)
    keys = set()
    for number in range(3):
        clock[0] += 5000
        request = repair(stale)
        keys.add(request.run_key)
        stale.run(request, FAILURE, **{FAILURE_TAG: "passing"})
        result = stale.tick("reconcile")
        assert isinstance(result, dg.SensorResult)
        assert [event.metadata["notice"].value for event in result.asset_events] == ["given up"] * (number == 2)
    assert len(keys) == 3, "each retry is a run of its own"
    clock[0] += 1e6
    assert "failed 3 times in a row" in why(stale)
    result = stale.tick("reconcile")
    assert isinstance(result, dg.SensorResult)
    assert not result.asset_events, "people are told once"


@pytest.mark.parametrize(
    ("status", "tags", "told"),
    [
        (FAILURE, {FAILURE_TAG: "permanent"}, "because of its data or code"),
        (CANCELED, {}, "a person stopped"),
        (FAILURE, {FAILURE_TAG: "stopped"}, "a person stopped"),
        (SUCCESS, {}, "did not change that"),
    ],
)
def test_what_trying_again_would_not_change_is_left_until_it_changes(
    stale: Desk, clock: list[float], status: dg.DagsterRunStatus, tags: dict[str, str], told: str
) -> None:
    why(stale)
    clock[0] = 300
    stale.run(repair(stale), status, **tags)
    for _ in range(3):
        clock[0] += 5000
        assert told in why(stale)
    stale.land("lot-02", age=7200)  # old enough for the sensor of new data to have left it
    assert "a run is started in" in why(stale)
    clock[0] += 300
    assert repair(stale).run_config["batches"] == ["lot-01", "lot-02"]


def test_a_run_of_somebody_elses_that_failed_for_good_is_not_repeated_either(stale: Desk, clock: list[float]) -> None:
    stale.run(dg.RunRequest(run_config={"batches": ["lot-01"]}), FAILURE, **{FAILURE_TAG: "permanent"})
    clock[0] = 5000
    assert "because of its data or code" in why(stale)


def test_a_run_of_other_batches_says_nothing_of_these(stale: Desk, clock: list[float]) -> None:
    why(stale)
    stale.run(dg.RunRequest(run_config={"batches": ["lot-07"]}), FAILURE, **{FAILURE_TAG: "permanent"})
    stale.run(dg.RunRequest(run_config={}), SUCCESS)
    clock[0] = 300
    assert repair(stale).tags[STALE_TAG]


def test_the_experiment_of_a_person_is_not_undone(stale: Desk, clock: list[float]) -> None:
    stale.run(dg.RunRequest(run_config={"replaced": ["recipe.epochs=1"]}), SUCCESS)
    clock[0] = 5000
    assert "other values than are declared" in why(stale)


def test_what_has_just_landed_is_left_to_the_sensor_of_new_data(stale: Desk, clock: list[float]) -> None:
    stale.land("lot-02", age=60)
    assert "1 batches have just landed" in why(stale)
    request = stale.asked()
    assert request is not None
    stale.run(request, FAILURE)  # killed before it read anything
    assert "tried again in" in why(stale)
    clock[0] = 300
    assert repair(stale).run_config["batches"] == ["lot-01", "lot-02"]


def test_a_batch_that_is_not_complete_is_nothing_to_do(desk: Desk) -> None:
    desk.land("lot-01", "readings", age=7200)
    assert why(desk) == "Nothing is stale."


def test_a_batch_that_still_waits_for_an_optional_source_is_left_alone(stale: Desk, clock: list[float]) -> None:
    readings, orders = stale.pipeline.sources
    desk = Desk(
        replace(stale.pipeline, sources=(readings, replace(orders, required=False))), stale.settings, stale.instance
    )
    desk.land("lot-02", "readings", age=7200)
    why(desk)
    clock[0] = 300
    assert repair(desk).run_config["batches"] == ["lot-01"]
    clock[0] = 24 * 3600
    why(desk)
    clock[0] += 300
    assert repair(desk).run_config["batches"] == ["lot-01", "lot-02"]


def test_where_training_has_a_calendar_only_batches_are_repaired_and_training_that_died(
    stale: Desk, clock: list[float]
) -> None:
    calendar = Automation(retrain=Retrain(cron="0 3 * * 1", timezone="UTC"))
    desk = Desk(replace(stale.pipeline, automation=calendar), stale.settings, stale.instance)
    why(desk)
    clock[0] = 300
    assert repair(desk).run_config["stages"] == ["raw_batch", "validated_batch", "features"]
    desk.run(dg.RunRequest(run_config={}), FAILURE)
    assert "tried again in" in why(desk)
    clock[0] = 600
    assert "registered_model" in repair(desk).run_config["stages"]


def test_code_that_was_edited_since_it_was_loaded_is_not_run_half_done(
    stale: Desk, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team_features.py").write_text("def build(spark, frames, references):\n    return 'state'\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = replace(stale.pipeline, features=replace(stale.pipeline.features, function="team_features:build"))
    desk = Desk(own, stale.settings, stale.instance)
    from ml_platform.automation.reconcile import build_reconcile_sensor
    from ml_platform.stages import stages_of

    stages = stages_of(own)
    sensor = build_reconcile_sensor(stages, desk.settings)
    assert stages["features"].version.value
    (tmp_path / "team_features.py").write_text("def build(spark, frames, references):\n    return 'state', 1\n")
    with dg.build_sensor_context(instance=desk.instance, repository_def=desk.repository) as context:
        result = sensor(context)
    assert isinstance(result, dg.SkipReason)
    assert "features was edited since it was loaded" in str(result.skip_message)


def test_a_landing_place_that_is_away_fails_the_look(stale: Desk) -> None:
    folder = Path(stale.settings.landing) / "tiny" / "readings"
    folder.rename(folder.with_name("away"))
    folder.write_text("not a folder")
    with pytest.raises(PlatformError, match="cannot be listed"):
        stale.tick("reconcile")


def test_it_takes_new_data_itself_where_no_other_sensor_does(quick: Pipeline, desk: Desk, clock: list[float]) -> None:
    alone = Desk(replace(quick, automation=Automation(new_data=None)), desk.settings, desk.instance)
    alone.land("lot-01")
    why(alone)
    clock[0] = 300
    assert repair(alone).run_config["batches"] == ["lot-01"]
    assert isinstance(quick.automation.new_data, NewData)
