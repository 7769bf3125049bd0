"""Did as many rows come as usual, and are they new? Weekdays are compared with their like where batches are days.

Reason codes: empty, repeated, volume_small, volume_large.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import numpy as np

from ml_platform.batches import DailyBatches, NamedBatches
from ml_platform.gates import robust
from ml_platform.gates.declaration import BatchGate
from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import Profile
from ml_platform.gates.report import BrokenRule, FamilyResult, Status, sentence
from ml_platform.words import counted

_LEAST_OF_A_WEEKDAY = 3
_FLOOR = 0.03
"""On the scale of logarithms: what a feed's number of rows changes by though it has not for a month, as on holidays."""
_FIXED_FLOOR = 0.01
"""The same where half of the batches or more have the very same number of rows: so many hours of so many stations."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def judge(
    batch: str,
    profile: Profile,
    content: str,
    history: Sequence[Accepted],
    repeated: str,
    gate: BatchGate,
    batches: DailyBatches | NamedBatches,
) -> FamilyResult:
    """Compare the number of rows with that of the accepted batches before.

    Args:
        batch: the batch's name; a date, where batches are days.
        profile: of its rows.
        content: data version of its rows.
        history: accepted batches before it, oldest first; the last `gate.history` of them are used.
        repeated: name of any other accepted batch with the same content, "" for none.
        gate: limits of the number of rows, and how many batches there must be.
        batches: how they are named.
    """
    rows, history = profile.rows, history[-gate.history :]
    same = [accepted.batch for accepted in history if accepted.content == content]
    if repeated or same:
        message = f"its rows are those of {repeated or same[0]} again"
        return _found("failed", rows, BrokenRule(check="is new", code="repeated", failures=rows, message=message))
    if not rows:
        return _found("failed", rows, BrokenRule(check="has rows", code="empty", message="there are no rows"))
    if len(history) < gate.least:
        message = f"nothing was compared: {len(history)} accepted batches before it, {gate.least} are needed"
        return FamilyResult(name="volume", checked=rows, message=message)
    counts = np.log([max(1, accepted.profile.rows) for accepted in history])
    value, usual, among = math.log(rows), counts, f"{len(history)} accepted batches"
    if isinstance(batches, DailyBatches) and batches.is_name(batch):
        days = np.array([_weekday(accepted.batch) for accepted in history])
        alike = days == _weekday(batch)
        if alike.sum() >= _LEAST_OF_A_WEEKDAY:
            # Every day as far as it is from its own weekday's middle: four Sundays alone would tell little.
            middles = {day: float(np.median(counts[days == day])) for day in set(days.tolist())}
            within = np.array([count - middles[day] for count, day in zip(counts, days.tolist(), strict=True)])
            usual = middles[_weekday(batch)] + within
            among = f"{int(alike.sum())} accepted {_DAYS[_weekday(batch)]}s, as much as {len(history)} batches vary"
    floor = _FIXED_FLOOR if np.mean(counts == np.median(counts)) >= 0.5 else _FLOOR
    one_row = math.exp(-float(np.median(usual)))
    distance = float(robust.distance(np.array(value), usual, math.hypot(floor, one_row)))
    middle = math.exp(float(np.median(usual)))
    far = f"{robust.told(abs(distance), gate.volume.warn, gate.volume.reject)} robust sd"
    message = f"{counted(rows, 'row')}, {rows / middle - 1:+.0%} from the usual {middle:,.0f} of {among} ({far})"
    code = "volume_small" if distance < 0 else "volume_large"
    rule = BrokenRule(check="has as many rows as usual", code=code, message=message)
    if gate.volume.reject is not None and abs(distance) >= gate.volume.reject:
        return _found("failed", rows, rule)
    if gate.volume.warn is not None and abs(distance) >= gate.volume.warn:
        return _found("warned", rows, rule)
    return FamilyResult(name="volume", checked=rows, message=message)


def _found(status: Status, rows: int, rule: BrokenRule) -> FamilyResult:
    return FamilyResult(
        name="volume",
        status=status,
        failures=rule.failures,
        checked=rows,
        message=sentence([rule], [], rows),
        broken=(rule,),
    )


def _weekday(batch: str) -> int:
    """0 for Monday. -1 for a name that is no date."""
    return dt.date.fromisoformat(batch).weekday() if DailyBatches.is_name(batch) else -1
