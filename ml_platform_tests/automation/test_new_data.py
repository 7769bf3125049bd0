"""New data starts one run when it is complete, and never the same twice, whatever dies in between."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.automation.arrivals import Memory
from ml_platform.automation.declaration import Automation, NewData, Retrain
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform_tests.automation.conftest import Desk
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.store.conftest import s3_endpoint, s3_options, s3_url

__all__ = ["s3_endpoint", "s3_options", "s3_url"]


def test_all_that_is_new_is_one_run_and_what_was_taken_is_none(desk: Desk) -> None:
    assert desk.new() is None
    for batch in ("lot-01", "lot-02", "lot-03"):
        desk.land(batch)
    request = desk.asked()
    assert request is not None
    assert request.job_name == "tiny_chain"
    assert request.run_config == {"batches": ["lot-01", "lot-02", "lot-03"]}, "all stages"
    assert set(desk.instance.get_dynamic_partitions("tiny_batches")) == {"lot-01", "lot-02", "lot-03"}
    desk.take(*request.run_config["batches"])
    assert desk.new() is None
    desk.land("lot-04")
    assert desk.new() == ["lot-04"]


def test_a_batch_waits_for_all_its_sources(desk: Desk) -> None:
    desk.land("lot-01", "readings")
    desk.land("lot-02")
    assert desk.new() == ["lot-02"]
    desk.take("lot-02")
    desk.land("lot-01", "orders")
    assert desk.new() == ["lot-01"]


def test_a_run_also_treats_what_is_out_of_date_because_training_reads_all_batches(desk: Desk) -> None:
    for number in range(1, 5):
        desk.land(f"lot-{number:02d}")
    desk.take()  # and their later stages are still to do
    desk.land("lot-02", data="late")
    request = desk.asked()
    assert request is not None
    assert request.run_config["batches"] == [f"lot-{number:02d}" for number in range(1, 5)]


def test_a_file_that_is_still_written_is_left_until_it_keeps_still(desk: Desk) -> None:
    desk.land("lot-01", "readings")
    desk.land("lot-01", "orders", age=0, data="half")
    assert desk.new() is None
    desk.land("lot-01", "orders", age=0, data="half and more")
    assert desk.new() is None, "it has changed since the last look"
    assert desk.new() == ["lot-01"], "it is the same as at the last look"


def test_clocks_that_differ_do_not_matter_where_a_file_keeps_still(desk: Desk) -> None:
    desk.land("lot-01", age=-7200)
    assert desk.new() is None
    assert desk.new() == ["lot-01"]


def test_an_empty_file_is_none(desk: Desk) -> None:
    desk.land("lot-01", "readings")
    (Path(desk.settings.landing) / "tiny" / "orders").mkdir()
    (Path(desk.settings.landing) / "tiny" / "orders" / "lot-01.csv").touch()
    result = desk.tick()
    assert isinstance(result, dg.SensorResult)
    assert result.skip_reason is not None
    assert "lot-01 waits for orders" in str(result.skip_reason.skip_message)


def test_the_same_look_after_a_crash_asks_for_the_same_run(desk: Desk) -> None:
    desk.land("lot-01")
    desk.land("lot-02")
    lost = desk.asked(commit=False)
    again = desk.asked(commit=False)
    assert lost is not None
    assert again is not None
    assert lost.run_key == again.run_key, "Dagster makes one run of a key"
    desk.land("lot-02", data="other content")
    other = desk.asked()
    assert other is not None
    assert other.run_key != lost.run_key


def test_while_its_run_goes_on_no_other_is_asked_for_and_then_one_for_all_that_landed_since(desk: Desk) -> None:
    desk.land("lot-01")
    request = desk.asked(commit=False)  # the daemon died after it had made the run, and before it kept the cursor
    assert request is not None
    run_id = desk.run(request, dg.DagsterRunStatus.STARTED)
    for number in range(2, 8):
        desk.land(f"lot-{number:02d}")
        assert desk.new() is None
    desk.instance.report_run_canceled(desk.instance.get_run_by_id(run_id))  # type: ignore[arg-type]
    desk.take("lot-01")
    assert desk.new() == [f"lot-{number:02d}" for number in range(2, 8)]


def test_what_a_run_could_not_take_is_not_asked_for_again_until_it_lands_again(desk: Desk) -> None:
    desk.land("lot-01")
    assert desk.new() == ["lot-01"]
    assert desk.new() is None, "its run has come and gone: trying again is for reconcile to decide"
    desk.land("lot-02")
    assert desk.new() == ["lot-02"]
    desk.land("lot-01", data="corrected")
    assert desk.new() == ["lot-01"]


def test_late_data_under_an_old_name_is_a_new_arrival(desk: Desk) -> None:
    for batch in ("lot-01", "lot-02", "lot-03"):
        desk.land(batch)
    desk.take()
    assert desk.new() is None
    desk.land("lot-01", "orders", data="late")
    assert desk.new() == ["lot-01"]
    desk.take("lot-01")
    assert desk.new() is None


def test_the_same_content_landed_again_is_taken_without_a_second_data_version(desk: Desk) -> None:
    desk.land("lot-01")
    desk.take()
    desk.land("lot-01", age=50)
    assert desk.new() == ["lot-01"], "which bytes it holds is for a run to find out, not for a sensor"
    desk.take("lot-01")
    assert desk.new() is None


def test_a_burst_of_a_thousand_files_makes_few_runs(quick: Pipeline, desk: Desk) -> None:
    limited = replace(quick, sources=quick.sources[:1], automation=Automation(new_data=NewData(batches_a_run=400)))
    burst = Desk(limited, desk.settings, desk.instance)
    folder = Path(desk.settings.landing) / "tiny" / "readings"
    folder.mkdir(parents=True)
    for number in range(1000):
        (folder / f"lot-{number:04d}.csv").write_text("x\n")
        os.utime(folder / f"lot-{number:04d}.csv", (0, 0))
    runs = []
    while (new := burst.new()) is not None:
        runs.append(new)
    assert [len(new) for new in runs] == [400, 400, 200]
    expected = [f"lot-{number:04d}" for number in range(1000)]
    assert [batch for new in runs for batch in new] == expected, "each once, the earliest first"


def test_what_was_taken_need_not_be_remembered(desk: Desk) -> None:
    desk.land("lot-01")
    desk.land("lot-02")
    assert desk.new() == ["lot-01", "lot-02"]
    desk.take("lot-01")
    assert desk.new() is None
    assert list(Memory.from_json(desk.cursors["new_data"]).requested) == ["lot-02"]
    desk.cursors.clear()
    assert desk.new() == ["lot-02"]


def test_people_are_told_once_of_a_batch_that_waits_too_long_and_it_is_taken_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.land("lot-01", "readings")
    assert events(desk.tick()) == []
    later(monkeypatch, hours=25)
    (told,) = events(desk.tick(commit=False))
    (again,) = events(desk.tick())
    assert told == again, "what was not kept is told again"
    assert told.partition == "lot-01"
    assert told.metadata["missing"].value == "orders"
    assert events(desk.tick()) == []
    desk.land("lot-01", "orders")
    assert desk.new() == ["lot-01"]


def test_after_the_deadline_a_batch_is_taken_without_a_source_that_is_not_required(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, orders = desk.pipeline.sources
    optional = replace(desk.pipeline, sources=(readings, replace(orders, required=False)))
    desk = Desk(optional, desk.settings, desk.instance)
    desk.land("lot-01", "readings")
    desk.land("lot-02")
    assert desk.new() == ["lot-02"]
    desk.take("lot-02")
    assert desk.new() is None
    assert "lot-01 waits for orders" in str(desk.tick().skip_reason)  # type: ignore[union-attr]
    later(monkeypatch, hours=25)
    result = desk.tick(commit=False)
    assert events(result) == [], "it is as declared: nobody need be told"
    assert desk.new() == ["lot-01"]
    monkeypatch.undo()
    desk.take("lot-01")
    assert desk.new() is None
    desk.land("lot-01", "orders")
    assert desk.new() == ["lot-01"], "it has landed after all"


def events(result: dg.SensorResult | dg.SkipReason) -> list[Any]:
    assert isinstance(result, dg.SensorResult)
    return list(result.asset_events)


def later(monkeypatch: pytest.MonkeyPatch, **delta: float) -> None:
    import datetime as dt

    at = time.time() + dt.timedelta(**delta).total_seconds()
    monkeypatch.setattr("ml_platform.automation.new_data.time.time", lambda: at)


def test_where_training_has_a_calendar_new_data_brings_only_the_batches_up_to_date(desk: Desk, quick: Pipeline) -> None:
    weekly = replace(quick, automation=Automation(retrain=Retrain(cron="0 3 * * 1", timezone="Europe/Berlin")))
    with_calendar = Desk(weekly, desk.settings, desk.instance)
    with_calendar.land("lot-01")
    request = with_calendar.asked()
    assert request is not None
    assert request.run_config["stages"] == ["raw_batch", "validated_batch", "features"]
    (schedule,) = with_calendar.repository.schedule_defs
    assert schedule.execution_timezone == "Europe/Berlin"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_an_unreachable_landing_place_fails_the_look_and_nothing_is_forgotten(desk: Desk) -> None:
    desk.land("lot-01", "readings")
    desk.tick()
    folder = Path(desk.settings.landing) / "tiny" / "readings"
    folder.rename(folder.with_name("away"))
    folder.write_text("not a folder")
    with pytest.raises(Exception, match="cannot be listed"):
        desk.tick()
    folder.unlink()
    folder.with_name("away").rename(folder)
    desk.land("lot-01", "orders")
    assert desk.new() == ["lot-01"]


def test_a_bucket_is_listed_from_the_last_settled_batch_on_and_whole_now_and_then(
    quick: Pipeline, s3_url: str, s3_options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fresh_settings(tmp_path / "home", landing=f"{s3_url}/landing", storage_options=s3_options)
    with prepare_instance(settings) as instance:
        desk = Desk(quick, settings, instance)
        for batch in ("lot-01", "lot-02", "lot-04"):
            desk.land(batch)
        desk.land("lot-03", "readings")
        assert desk.new() == ["lot-01", "lot-02", "lot-04"]
        desk.take("lot-01", "lot-02", "lot-04")
        assert desk.new() is None
        assert Memory.from_json(desk.cursors["new_data"]).mark == "lot-02", "lot-03 is still awaited"
        desk.land("lot-03", "orders")
        assert desk.new() == ["lot-03"]
        desk.take("lot-03")
        assert desk.new() is None
        desk.land("lot-01", "orders", data="late")
        assert desk.new() is None, "only names after lot-04 are listed"
        later(monkeypatch, minutes=11)
        assert desk.new() == ["lot-01"]
        monkeypatch.undo()
        desk.take("lot-01")
        desk.land("lot-05")
        assert desk.new() == ["lot-05"]


def test_a_pipeline_that_declares_nothing_of_it_has_no_sensor(desk: Desk, quick: Pipeline) -> None:
    still = replace(quick, automation=Automation(new_data=None, reconcile=None))
    sensors = Desk(still, desk.settings, desk.instance).repository.sensor_defs
    assert [sensor.name for sensor in sensors] == ["alerts"]
