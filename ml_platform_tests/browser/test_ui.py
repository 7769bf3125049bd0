"""The real UI in headless Chromium: the graph is there, assets are materialized by clicks, a refusal can be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ml_platform.gates.report import FAMILIES, HISTORY_FAMILIES
from ml_platform.instance import prepare_instance
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.stages import stages_of
from ml_platform_tests.browser.conftest import BROKEN, GOOD

if TYPE_CHECKING:
    from ml_platform.settings import Settings
    from ml_platform_tests.browser.pages import Pages

pytestmark = pytest.mark.browser

REASON = "943 of 943 rows break greater_than(0) on distance"


@pytest.fixture(scope="module")
def planes(ui: Pages) -> str:
    """How the run ended that a click on the page of `planes` launched."""
    return ui.materialize("planes")


@pytest.fixture(scope="module")
def backfill(ui: Pages) -> str:
    """Path of the page of a backfill over both days, launched in the browser, whose run has ended."""
    path = ui.launch_backfill(["raw_batch", "validated_batch"], GOOD, BROKEN, count=2)
    ui.open(f"{path}?tab=runs")
    assert ui.end_of_run() == "Success"  # one bad batch fails nobody else's run
    return path


def test_the_graph_shows_every_stage(ui: Pages) -> None:
    ui.open_group("lineage")
    for name in stages_of(PIPELINE):
        ui.page.get_by_text(name, exact=True).first.wait_for()


def test_the_automation_page_names_every_sensor_and_a_sensors_page_says_what_it_does(ui: Pages) -> None:
    ui.open("/automation")
    for name in ("alerts", "nyc_flights_new_data", "nyc_flights_reconcile"):
        ui.sees(name)
    ui.open("/locations/ml_platform/sensors/nyc_flights_new_data")
    ui.sees(re.compile("for all batches that have landed whole"))


def test_a_backfill_of_two_days_publishes_the_good_one(ui: Pages, backfill: str, home: Settings) -> None:
    with prepare_instance(home) as instance:
        taken, accepted = (_published(instance, stage) for stage in ("raw_batch", "validated_batch"))
    assert (taken, accepted) == ({GOOD, BROKEN}, {GOOD})
    ui.open_asset("validated_batch", view="partitions", partition=GOOD)
    ui.page.get_by_text("Materialized", exact=True).wait_for()
    ui.sees("rows of flights")


def test_why_a_batch_was_rejected_can_be_read_in_its_events(ui: Pages, backfill: str) -> None:
    ui.open_asset("validated_batch", view="events", partition=BROKEN)
    ui.sees(re.compile("observed in run"))
    assert REASON in ui.text()


def test_why_a_batch_was_rejected_can_be_read_in_its_checks(ui: Pages, backfill: str, home: Settings) -> None:
    ui.open_asset("validated_batch", view="checks", checkDetail="values")
    ui.sees(re.compile(re.escape(REASON)))
    text = ui.text()
    assert BROKEN in text
    assert "failing rows of flights" in text
    verdicts = re.findall(r"^(\w+)\n(Succeeded|Failed)$", text, re.MULTILINE)
    failed = {name for name, verdict in verdicts if verdict == "Failed"}
    assert failed == {"values", *HISTORY_FAMILIES}, "what could not be looked at has not succeeded either"
    assert len(verdicts) == len(FAMILIES) + len(HISTORY_FAMILIES)


def test_a_click_materializes_an_asset(ui: Pages, planes: str, home: Settings) -> None:
    assert planes == "Success"
    ui.open_asset("planes", view="events")
    ui.sees(re.compile("Materialized in run"))
    with prepare_instance(home) as instance:
        event = instance.get_latest_materialization_event(_key("planes"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["dagster/row_count"].value == 3322


def test_features_of_a_rejected_batch_are_refused_with_the_reason(
    ui: Pages, planes: str, backfill: str, home: Settings
) -> None:
    assert ui.launch_partition("features", BROKEN) == "Failure"
    ui.sees(re.compile(rf"validated_batch of {BROKEN} was rejected: .*{re.escape(REASON)}"))
    with prepare_instance(home) as instance:
        assert _published(instance, "features") == set()


def test_the_page_of_a_backfill_counts_the_rejected_batch(ui: Pages, backfill: str) -> None:
    """Last: Dagster's daemon looks at a backfill every half minute, and settles it only then."""
    ui.open(backfill)
    ui.page.get_by_text("Failed", exact=True).nth(1).wait_for()  # its status; the first heads a column
    # Partitions targeted, in progress, succeeded, failed.
    assert re.search(r"validated_batch\s+100% completed\s+2\s+0\s+1\s+1\b", ui.text())
    assert re.search(r"raw_batch\s+100% completed\s+2\s+0\s+2\s+0\b", ui.text())


def _key(stage: str) -> dg.AssetKey:
    return dg.AssetKey([PIPELINE.name, stage])


def _published(instance: dg.DagsterInstance, stage: str) -> set[str | None]:
    records = instance.fetch_materializations(_key(stage), limit=9).records
    return {record.partition_key for record in records}
