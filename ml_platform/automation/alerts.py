"""Tells people what needs them: failed runs, batches that a gate rejected, and what waits too long.

All of it stands in Dagster's event log already; a sensor reads on from where it was, and sends what is new in one
message to the addresses of `ML_PLATFORM_ALERTS`, through Apprise, which knows mail, chat and paging services by URL
(https://github.com/caronc/apprise). Without addresses it goes to the sensor's log. What could not be sent is sent again
at the next look, so a message may come twice and none is lost.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.automation.runs import default_status, ending_of, is_of
from ml_platform.errors import SetupError
from ml_platform.stages.outcome import problems_of
from ml_platform.words import few

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings

EVERY_SECONDS = 30
MOST = 500
"""Observations, and runs, of one look. What is beyond them comes at the next."""
SHOWN = 5
OVERLAP_SECONDS = 60.0
"""Runs are looked at again for so long: two may have ended in any order."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """How far people were told: the last observation's storage id; runs until then (seconds since 1970), and which of
    those that may be seen again."""

    observation: int
    until: float
    runs: list[str]

    def to_json(self) -> str:
        """As a sensor's cursor."""
        return json.dumps(asdict(self))


def build_alert_sensor(pipelines: Mapping[str, Pipeline], settings: Settings) -> dg.SensorDefinition:
    """The sensor that tells people of all these pipelines, by name."""

    @dg.sensor(
        name="alerts",
        description="Tells people (ML_PLATFORM_ALERTS) of failed runs, rejected batches and what waits too long.",
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=default_status(settings),
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.cursor is None:
            reported = _from_now_on(context.instance)
            return dg.SensorResult(
                skip_reason="People are told of what happens from now on.", cursor=reported.to_json()
            )
        lines, reported = _news(context.instance, pipelines, Reported(**json.loads(context.cursor)))
        if lines:
            context.log.warning("\n".join(lines))
            send(settings.alerts, f"ml_platform: {_count(lines)}", "\n".join(lines))
        told = f"Told people: {_count(lines)}." if lines else "Nothing that people need to know."
        return dg.SensorResult(skip_reason=told, cursor=reported.to_json())

    return alerts


def send(addresses: str, title: str, body: str) -> None:
    """Send a message to Apprise URLs, which are separated by commas or blanks. None, and nothing is sent.

    Raises:
        SetupError: an address is of no kind that Apprise knows, or did not take the message.
    """
    urls = addresses.replace(",", " ").split()
    if not urls:
        return
    import apprise

    for number, url in enumerate(urls, 1):
        where = f"ML_PLATFORM_ALERTS, address {number} ({url.partition(':')[0]})"  # what follows may be a password
        target = apprise.Apprise()
        if not target.add(url):
            raise SetupError(
                "Nothing can be sent to such an address.",
                where=where,
                fix="see https://github.com/caronc/apprise for how addresses are written",
            )
        if not target.notify(title=title, body=body):
            raise SetupError("The message was not taken.", where=where, fix="is the service up, and the address right?")


def _from_now_on(instance: dg.DagsterInstance) -> Reported:
    latest = _observations(instance, None, limit=1, ascending=False)
    now = time.time()
    known = [record.dagster_run.run_id for record in _failed(instance, now)]
    return Reported(observation=latest[0].storage_id if latest else 0, until=now, runs=known)


def _news(
    instance: dg.DagsterInstance, pipelines: Mapping[str, Pipeline], reported: Reported
) -> tuple[list[str], Reported]:
    """What people were not told yet, a line each, and how far they are told then."""
    observed = _observations(instance, reported.observation, limit=MOST, ascending=True)
    failed = _failed(instance, reported.until)
    lines = _told(observed, pipelines)
    for record in failed:
        run = record.dagster_run
        pipeline = next((pipeline for pipeline in pipelines.values() if is_of(run, pipeline)), None)
        if pipeline is None or run.run_id in reported.runs:
            continue
        ending = ending_of(record)
        if ending == "stopped" or (ending == "passing" and pipeline.automation.reconcile is not None):
            continue  # somebody knows; or it is tried again, and people are told if that does not help
        lines.append(f"{pipeline.name}: run {run.run_id[:8]} failed. {problems_of(instance, run)[0]}")
    return lines, Reported(
        observation=max([reported.observation, *(record.storage_id for record in observed)]),
        until=max([reported.until, *(record.update_timestamp.timestamp() for record in failed)]),
        runs=[record.dagster_run.run_id for record in failed],
    )


def _failed(instance: dg.DagsterInstance, until: float) -> Sequence[dg.RunRecord]:
    """Failed runs that changed after that, and those shortly before it."""
    after = dt.datetime.fromtimestamp(until - OVERLAP_SECONDS, dt.UTC)
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after)
    return instance.get_run_records(filters=filters, order_by="update_timestamp", ascending=True, limit=MOST)


def _told(observed: Iterable[dg.EventLogRecord], pipelines: Mapping[str, Pipeline]) -> list[str]:
    """One line for each thing that was said of an asset, however many batches it was said of."""
    batches: dict[tuple[str, str], list[str]] = {}
    for record in observed:
        event = record.event_log_entry.asset_observation
        if event is None or event.asset_key.path[0] not in pipelines:
            continue
        verdict, notice = (event.metadata.get(name) for name in ("verdict", "notice"))
        if notice is None and (verdict is None or verdict.value != "rejected"):
            continue
        said = "rejected" if notice is None else str(notice.value)
        key = (event.asset_key.to_user_string(), f"{said}. {event.description or ''}".strip())
        batches.setdefault(key, []).extend([event.partition] if event.partition else [])
    return [f"{asset} {few(names, SHOWN)}: {said}".replace(" :", ":") for (asset, said), names in batches.items()]


def _observations(
    instance: dg.DagsterInstance, after: int | None, *, limit: int, ascending: bool
) -> Sequence[dg.EventLogRecord]:
    # The instance's own method is for one asset at a time, of which there may be hundreds.
    return instance.event_log_storage.get_event_records(
        dg.EventRecordsFilter(event_type=dg.DagsterEventType.ASSET_OBSERVATION, after_cursor=after),
        limit=limit,
        ascending=ascending,
    )


def _count(lines: Sequence[str]) -> str:
    return "1 thing needs a look" if len(lines) == 1 else f"{len(lines)} things need a look"
