"""What a pipeline does by itself: take new data, repair what is stale, train by the calendar. Imports no Dagster."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_platform import declared
from ml_platform.errors import DeclarationError

_CRON_PART = re.compile(r"[0-9A-Za-z*/,#L-]+")


@dataclass(frozen=True, kw_only=True)
class NewData:
    """Watches the landing place, and starts one run for all batches that are complete and were not taken yet.

    Args:
        every_seconds: how often it looks.
        relist_seconds: how often a bucket is listed whole. In between, only names after the last batch that was
            settled are listed, so a batch that lands again under an old name is noticed this late. A folder is
            always listed whole, which costs little.
        deadline_hours: how long a batch may wait for its other sources after its first one was seen. Then it is taken
            without those that are not required. If it lacks one that is, people are told, once, and it is taken
            whenever it becomes complete.
        batches_a_run: at most so many in one run; what is left goes into the next.
    """

    every_seconds: int = 30
    relist_seconds: int = 600
    deadline_hours: float = 24.0
    batches_a_run: int = 1000

    def __post_init__(self) -> None:
        for name in ("every_seconds", "relist_seconds", "batches_a_run"):
            declared.whole_number("NewData", name, getattr(self, name), 1)
        _positive("NewData", "deadline_hours", self.deadline_hours)


@dataclass(frozen=True, kw_only=True)
class Reconcile:
    """Plans now and then, and starts a run for what is stale: new code, and runs that died or could not be finished.

    Args:
        every_seconds: how often it plans. What is stale must have been so at the plan before: nobody wants a run of a
            deployment that is half done.
        retries: how often a run is tried again that failed for a reason that passes. One that failed because of its
            data or code is not tried again until what is to be done has changed.
        retry_seconds: the wait before the first retry; it doubles with each, up to `longest_wait_seconds`, and is
            varied by a quarter either way, so that many pipelines do not come back at once.
        longest_wait_seconds: of one wait.
    """

    every_seconds: int = 300
    retries: int = 5
    retry_seconds: int = 60
    longest_wait_seconds: int = 3600

    def __post_init__(self) -> None:
        for name in ("every_seconds", "retry_seconds", "longest_wait_seconds"):
            declared.whole_number("Reconcile", name, getattr(self, name), 1)
        declared.whole_number("Reconcile", "retries", self.retries, 0)


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Trains by the calendar, instead of whenever there are new batches.

    Args:
        cron: minute, hour, day of month, month, day of week: "0 3 * * 1" is Mondays at three.
        timezone: in which the clock is read, such as "Europe/Berlin". Always named: a server's own is anyone's guess.
    """

    cron: str
    timezone: str

    def __post_init__(self) -> None:
        parts = declared.text("Retrain", "cron", self.cron).split()
        if len(parts) != 5 or not all(_CRON_PART.fullmatch(part) for part in parts):
            raise DeclarationError(
                "Not a schedule.", where="Retrain", got=repr(self.cron), fix='five fields, such as "0 3 * * 1"'
            )
        try:
            zoneinfo.ZoneInfo(declared.text("Retrain", "timezone", self.timezone))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a region is a folder
            raise DeclarationError("Unknown time zone.", where="Retrain", got=repr(self.timezone)) from error


@dataclass(frozen=True, kw_only=True)
class Automation:
    """What happens without anybody's doing while a Dagster daemon runs (`ml-platform ui` starts one).

    Args:
        new_data: take what lands; None leaves that to people.
        reconcile: repair what is stale; None leaves that to people.
        retrain: train by the calendar: then new data brings the batches up to date, up to their features, and the
            schedule does the rest. None trains whenever there is new data.
        fresh_within: how old an asset may become, by stage; the UI shows what is older as overdue, and warns when three
            quarters of the time have passed.
    """

    new_data: NewData | None = field(default_factory=NewData)
    reconcile: Reconcile | None = field(default_factory=Reconcile)
    retrain: Retrain | None = None
    fresh_within: Mapping[str, dt.timedelta] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (("new_data", NewData), ("reconcile", Reconcile), ("retrain", Retrain)):
            if getattr(self, name) is not None:
                declared.instance("Automation", name, getattr(self, name), kind)
        declared.instance("Automation", "fresh_within", self.fresh_within, Mapping)
        for stage, age in self.fresh_within.items():
            declared.text("Automation.fresh_within", "stage", stage)
            if not isinstance(age, dt.timedelta) or age < dt.timedelta(minutes=1):
                raise DeclarationError(
                    "How old an asset may become is a timedelta of a minute or more.",
                    where=f"Automation.fresh_within, {stage}",
                    got=repr(age),
                    fix="write datetime.timedelta(hours=36)",
                )


def _positive(where: str, name: str, value: object) -> None:
    if not (declared.is_finite(value) and isinstance(value, int | float) and value > 0):
        raise DeclarationError(f"`{name}` must be a number above 0.", where=where, got=repr(value))
