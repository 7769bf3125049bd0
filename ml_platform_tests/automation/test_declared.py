"""What is declared is checked when it is declared, and is what Dagster shows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from ml_platform.definitions import build_definitions
from ml_platform.errors import DeclarationError
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Automation, NewData, Pipeline, Reconcile, Retrain, Source
from ml_platform.settings import Settings


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: NewData(every_seconds=0), "at least 1"),
        (lambda: NewData(deadline_hours=0), "above 0"),
        (lambda: NewData(deadline_hours="1"), "above 0"),  # type: ignore[arg-type]
        (lambda: Reconcile(retries=-1), "at least 0"),
        (lambda: Retrain(cron="nightly", timezone="UTC"), "Not a schedule"),
        (lambda: Retrain(cron="0 3 * *", timezone="UTC"), "five fields"),
        (lambda: Retrain(cron="0 3 * * *", timezone="Berlin"), "Unknown time zone"),
        (lambda: Automation(new_data=True), "must be a NewData"),  # type: ignore[arg-type]
        (lambda: Automation(fresh_within={"features": 36}), "must be|timedelta"),  # type: ignore[dict-item]
        (lambda: Source(name="s", schema="a:b", complete="soon"), "."),  # type: ignore[arg-type]
    ],
)
def test_what_is_declared_wrongly_is_said_at_once(declare: Callable[[], Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declare()


def test_a_time_limit_for_a_stage_that_is_none_is_refused(tiny: Pipeline) -> None:
    with pytest.raises(DeclarationError, match="no such stage"):
        replace(tiny, automation=Automation(fresh_within={"feature": dt.timedelta(hours=1)}))


def test_by_default_what_lands_is_taken_and_what_is_stale_repaired(tiny: Pipeline) -> None:
    repository = build_definitions([tiny], Settings()).get_repository_def()
    sensors = {sensor.name: sensor for sensor in repository.sensor_defs}
    assert set(sensors) == {"tiny_new_data", "tiny_reconcile", "alerts"}
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}
    assert all(sensor.description for sensor in sensors.values())
    assert list(repository.schedule_defs) == []


def test_one_setting_leaves_all_of_it_to_people(tiny: Pipeline) -> None:
    weekly = replace(tiny, automation=Automation(retrain=Retrain(cron="0 3 * * 1", timezone="UTC")))
    repository = build_definitions([weekly], Settings(automation=False)).get_repository_def()
    assert {sensor.default_status for sensor in repository.sensor_defs} == {dg.DefaultSensorStatus.STOPPED}
    assert {schedule.default_status for schedule in repository.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}


def test_how_old_an_asset_may_become_is_shown(tiny: Pipeline) -> None:
    limits = {"raw_batch": dt.timedelta(hours=36), "registered_model": dt.timedelta(days=8)}
    declared = replace(tiny, automation=Automation(fresh_within=limits))
    graph = build_definitions([declared], Settings()).get_repository_def().asset_graph
    found = {key.path[1]: graph.get(key).freshness_policy for key in graph.get_all_asset_keys()}
    shown = {name: policy for name, policy in found.items() if policy is not None}
    assert set(shown) == set(limits)
    assert shown["raw_batch"] == dg.FreshnessPolicy.time_window(
        fail_window=dt.timedelta(hours=36), warn_window=dt.timedelta(hours=27)
    )


def test_the_schedule_asks_for_the_whole_chain_once_a_time(tiny: Pipeline, settings: Settings) -> None:
    weekly = replace(tiny, automation=Automation(retrain=Retrain(cron="0 3 * * 1", timezone="Europe/Berlin")))
    (schedule,) = build_definitions([weekly], settings).get_repository_def().schedule_defs
    monday = dt.datetime(2026, 3, 30, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    with prepare_instance(settings) as instance:
        asked = []
        for _ in range(2):
            with dg.build_schedule_context(instance=instance, scheduled_execution_time=monday) as context:
                asked += schedule.evaluate_tick(context).run_requests or []
    first, second = asked
    assert first.run_key == second.run_key == "2026-03-30T01:00:00+00:00"
    assert first.run_config == {}
    assert int(first.tags["dagster/priority"]) > 0
