"""Are a batch's time stamps those of its day, and did it come in time?

Reason codes: outside_its_day, no_time, late.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Mapping

import polars as pl

from ml_platform.batches import DailyBatches, NamedBatches
from ml_platform.feeds import Source
from ml_platform.gates.profile import Profile, Within
from ml_platform.gates.report import BrokenRule, FamilyResult, sentence

_UTC = dt.UTC


def within(
    batch: str, source: Source, batches: DailyBatches | NamedBatches, columns: Mapping[str, pl.DataType]
) -> Within | None:
    """What the profiler should count so that `judge` can say how many: the batch's day. None: nothing is to be counted.

    Args:
        batch: the batch's name.
        source: names the column.
        batches: how they are named, and in which time zone a day begins.
        columns: of the canonical file.
    """
    if (
        source.time is None
        or source.time not in columns
        or not isinstance(batches, DailyBatches)
        or not batches.is_name(batch)
    ):
        return None
    bounds = _bounds(batch, batches.timezone, str(columns[source.time]))
    return Within(column=source.time, start=bounds[0], end=bounds[1]) if bounds else None


def judge(
    batch: str,
    profile: Profile,
    source: Source,
    batches: DailyBatches | NamedBatches,
    landed: dt.datetime | None = None,
) -> FamilyResult:
    """Whether every time stamp lies in the batch's day (fails), and the batch came in time (warns).

    Args:
        batch: the batch's name.
        profile: of its rows; where it was made with what `within` says, the rows outside are counted.
        source: `time` and `late_hours`.
        batches: how they are named, and in which time zone a day begins.
        landed: when the batch landed, with a zone; None where that is not known.
    """
    if not isinstance(batches, DailyBatches) or not batches.is_name(batch):
        return FamilyResult(name="freshness", checked=profile.rows, message="nothing was checked: batches are not days")
    wrong = _outside(batch, profile, source.time, batches.timezone) if source.time is not None else None
    told = [f"every {source.time} is of {batch}"] if source.time is not None and wrong is None else []
    late = None
    if source.late_hours is not None and landed is not None:
        hours = (landed - _day(batch, batches.timezone)[1]).total_seconds() / 3600
        message = f"it landed {hours:.1f} hours after the end of its day, and {source.late_hours:g} are allowed"
        if hours > source.late_hours:
            late = BrokenRule(check="landed in time", code="late", message=message)
        else:
            told.append(message)
    rules = [rule for rule in (wrong, late) if rule is not None]
    return FamilyResult(
        name="freshness",
        status="failed" if wrong else "warned" if late else "passed",
        failures=wrong.failures if wrong else 0,
        checked=profile.rows,
        message=sentence(rules, [], profile.rows) if rules else "; ".join(told) or "nothing was asked for",
        broken=tuple(rules),
    )


def _outside(batch: str, profile: Profile, column: str, timezone: str) -> BrokenRule | None:
    found = profile.columns.get(column)
    bounds = _bounds(batch, timezone, found.type) if found is not None else None
    if found is None or bounds is None:
        message = f"{column} is {found.type if found else 'missing'}: no row can be said to be of {batch}"
        return BrokenRule(check="is a time", code="no_time", column=column, message=message)
    if found.least is None or found.most is None or (bounds[0] <= found.least and found.most < bounds[1]):
        return None
    zone = "" if _is_local(found.type) else " UTC"
    message = (
        f"{column} goes from {_shown(found.least)} to {_shown(found.most)}{zone}, "
        f"and {batch} in {timezone} from {_shown(bounds[0])} to {_shown(bounds[1])}{zone}"
    )
    if profile.outside:
        message = f"{profile.outside:,} of {profile.rows:,} rows are not of {batch}: {message}"
    check, failures = f"is of {batch}", profile.outside or 0
    return BrokenRule(check=check, code="outside_its_day", column=column, failures=failures, message=message)


def _bounds(batch: str, timezone: str, type_: str) -> tuple[float, float] | None:
    """Seconds since 1970 at which the day begins and ends; None where the type is no date and no time of a date."""
    if not type_.startswith(("Date", "Datetime")):
        return None
    start, end = _day(batch, "UTC" if _is_local(type_) else timezone)
    return start.timestamp(), end.timestamp()


def _is_local(type_: str) -> bool:
    """Whether it is a date, or a clock without a zone: that is taken as the local one."""
    return type_ == "Date" or "time_zone=None" in type_


def _day(batch: str, timezone: str) -> tuple[dt.datetime, dt.datetime]:
    """When a local day begins and when the next one does: 23 to 25 hours later."""
    zone, day = zoneinfo.ZoneInfo(timezone), dt.date.fromisoformat(batch)
    begins = [dt.datetime.combine(date, dt.time(), zone) for date in (day, day + dt.timedelta(days=1))]
    # In UTC: the difference of two times of one zone is that of their clocks.
    return begins[0].astimezone(_UTC), begins[1].astimezone(_UTC)


def _shown(seconds: float | None) -> str:
    if seconds is None:
        return "nothing"
    return (dt.datetime(1970, 1, 1, tzinfo=_UTC) + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
