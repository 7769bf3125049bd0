"""People are told of what needs them, once, at the addresses that they gave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from ml_platform.automation.alerts import build_alert_sensor, send
from ml_platform.errors import SetupError
from ml_platform.failures import FAILURE_TAG
from ml_platform.pipeline import Automation
from ml_platform.settings import Settings
from ml_platform.stages.resources import build_resources
from ml_platform_tests.automation.conftest import Desk


class Service:
    """Somebody's message service: keeps what it is sent, and is down on demand."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.up = True
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if service.up:
                    service.messages.append(message)
                self.send_response(200 if service.up else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    started = Service()
    yield started
    started.server.shutdown()


class Alerts:
    """The sensor that tells people, evaluated by hand."""

    def __init__(self, desk: Desk, service: Service) -> None:
        self.desk, self.service = desk, service
        settings = Settings(home=desk.settings.home, alerts=service.address)
        self.sensor = build_alert_sensor({desk.pipeline.name: desk.pipeline}, settings)
        self.cursor: str | None = None

    def tick(self) -> list[str]:
        """The lines that were sent at this look."""
        before = len(self.service.messages)
        with dg.build_sensor_context(instance=self.desk.instance, cursor=self.cursor) as context:
            result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        sent = self.service.messages[before:]
        assert len(sent) <= 1, "one message, however much there is to tell"
        return sent[0]["message"].splitlines() if sent else []


@pytest.fixture
def alerts(desk: Desk, service: Service) -> Alerts:
    desk.run(dg.RunRequest(run_config={}), dg.DagsterRunStatus.FAILURE)
    time.sleep(0.01)
    made = Alerts(desk, service)
    assert made.tick() == [], "what happened before anybody listened is history"
    return made


def observe(desk: Desk, batch: str | None, description: str, **metadata: str) -> None:
    desk.instance.report_runless_asset_event(
        dg.AssetObservation(["tiny", "validated_batch"], partition=batch, description=description, metadata=metadata)
    )


def test_a_run_that_failed_for_good_is_told_once(alerts: Alerts) -> None:
    run = alerts.desk.run(dg.RunRequest(run_config={}), dg.DagsterRunStatus.FAILURE, **{FAILURE_TAG: "permanent"})
    (line,) = alerts.tick()
    assert line.startswith(f"tiny: run {run[:8]} failed.")
    assert alerts.tick() == []
    alerts.desk.run(dg.RunRequest(run_config={}), dg.DagsterRunStatus.SUCCESS)
    assert alerts.tick() == []


def test_a_failure_that_is_tried_again_is_told_when_that_does_not_help(alerts: Alerts) -> None:
    alerts.desk.run(dg.RunRequest(run_config={}), dg.DagsterRunStatus.FAILURE, **{FAILURE_TAG: "passing"})
    assert alerts.tick() == []
    by_hand = replace(alerts.desk.pipeline, automation=Automation(reconcile=None))
    alerts.desk.pipeline = by_hand
    unattended = Alerts(alerts.desk, alerts.service)
    unattended.tick()
    alerts.desk.run(dg.RunRequest(run_config={}), dg.DagsterRunStatus.FAILURE, **{FAILURE_TAG: "passing"})
    assert len(unattended.tick()) == 1


def test_batches_rejected_for_one_reason_are_one_line(alerts: Alerts) -> None:
    for number in range(1, 9):
        observe(alerts.desk, f"lot-{number:02d}", "42 rows are below 0.", verdict="rejected")
    observe(alerts.desk, "lot-20", "Waits for orders.", notice="overdue")
    observe(alerts.desk, "lot-21", "Somebody's own observation.", weather="fine")
    assert alerts.tick() == [
        "tiny/validated_batch lot-01, lot-02, lot-03, lot-04, lot-05 and 3 more: rejected. 42 rows are below 0.",
        "tiny/validated_batch lot-20: overdue. Waits for orders.",
    ]
    assert alerts.tick() == []


def test_what_a_service_did_not_take_is_sent_again(alerts: Alerts) -> None:
    observe(alerts.desk, "lot-01", "Bad.", verdict="rejected")
    alerts.service.up = False
    with pytest.raises(SetupError, match="not taken") as caught:
        alerts.tick()
    assert "127.0.0.1" not in str(caught.value), "an address may hold a password"
    alerts.service.up = True
    assert alerts.tick() == ["tiny/validated_batch lot-01: rejected. Bad."]


def test_an_address_of_no_known_kind_is_said(service: Service) -> None:
    with pytest.raises(SetupError, match="such an address") as caught:
        send(f"{service.address}, carrierpigeon://secret", "title", "body")
    assert "secret" not in str(caught.value)


def test_addresses_are_not_shown_in_dagster(desk: Desk, service: Service) -> None:
    settings = Settings(home=desk.settings.home, alerts="slack://secret/of/ours")
    assert "secret" not in repr(settings)
    assert "secret" not in repr(build_resources(settings)["platform"])
