"""Is a batch distributed as the accepted ones before it were? Every figure is compared with its own history.

    result = judge(profile, history, source, gate)

All distances are on one scale, robust standard deviations of the figure's own history (`ml_platform.gates.robust`),
with a floor of sampling noise and of what is too small a change to matter. Nothing is learned from a rejected batch, as
only accepted ones are in the history.

Reason codes: drift_<figure>.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ml_platform.feeds import Source
from ml_platform.gates import columns, relations, robust
from ml_platform.gates.declaration import BatchGate, Limits
from ml_platform.gates.figures import TIMES, Distance
from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import Profile
from ml_platform.gates.report import BrokenRule, FamilyResult, sentence

_INFINITE = 0.005
"""Share of a batch's rows: from there on two infinite values or more reject."""


def judge(profile: Profile, history: Sequence[Accepted], source: Source, gate: BatchGate) -> FamilyResult:
    """Compare a batch with the accepted batches before it.

    Args:
        profile: of the batch's valid rows.
        history: accepted batches before it, oldest first; the last `gate.history` of them are used.
        source: `drift` has limits by column.
        gate: limits of all other columns, and how many batches there must be.

    Returns:
        "failed" where a distance reaches `reject`, or a column is gone that was always there; "warned" where one
        reaches `warn`, or a column is new.
    """
    history = history[-gate.history :]
    if len(history) < gate.least:
        message = f"nothing was compared: {len(history)} accepted batches before it, {gate.least} are needed"
        return FamilyResult(name="drift", checked=profile.rows, message=message)
    found = sorted(distances(profile, history), key=lambda one: -one.distance)
    rejected, warned = (
        [*gone, *infinite]
        for gone, infinite in zip(
            _columns(profile, history, source, gate), _infinite(profile, history, source, gate), strict=True
        )
    )
    for one in found:
        limits = _limits(one, source, gate)
        if limits is not None and limits.reject is not None and one.distance >= limits.reject:
            rejected.append(_rule(one, limits, len(history)))
        elif limits is not None and limits.warn is not None and one.distance >= limits.warn:
            warned.append(_rule(one, limits, len(history)))
    broken = tuple(_first_of_each(rejected or warned))
    if broken:
        message = sentence(broken, [], profile.rows)
        status: Any = "failed" if rejected else "warned"
        return FamilyResult(name="drift", status=status, checked=profile.rows, message=message, broken=broken)
    worst = next(((one, limits) for one in found if (limits := _limits(one, source, gate)) is not None), None)
    message = f"compared with {len(history)} accepted batches"
    if worst is not None:
        message += f"; farthest: {_rule(*worst, len(history)).message}"
    return FamilyResult(name="drift", checked=profile.rows, message=message)


def distances(profile: Profile, history: Sequence[Accepted]) -> list[Distance]:
    """Every figure of a profile that is a robust standard deviation or more from its history, in no order."""
    before = [accepted.profile for accepted in history]
    found, steady, flags = columns.distances(profile, before)
    return [*found, *relations.distances(profile.pairs, [one.pairs for one in before], steady, flags)]


def _columns(
    profile: Profile, history: Sequence[Accepted], source: Source, gate: BatchGate
) -> tuple[list[BrokenRule], list[BrokenRule]]:
    """Columns that all accepted batches had, and columns that none had: rules that reject, and that warn."""
    times = Counter(name for one in history for name in one.profile.columns)
    rejected, warned = [], []
    gone = [name for name, count in times.items() if count == len(history) and name not in profile.columns]
    for name in (*gone, *(name for name in profile.columns if name not in times)):
        limits = source.drift.get(name, gate.drift)
        words = "is not there, and was in all" if name in gone else "is there, and was in none of"
        message = f"{name} {words} {len(history)} accepted batches"
        rule = BrokenRule(check="columns as usual", code="drift_columns", column=name, message=message)
        if name in gone and limits is not None and limits.reject is not None:
            rejected.append(rule)
        elif limits is not None and limits.warn is not None:
            warned.append(rule)
    return rejected, warned


def _infinite(
    profile: Profile, history: Sequence[Accepted], source: Source, gate: BatchGate
) -> tuple[list[BrokenRule], list[BrokenRule]]:
    """Columns with infinite values, which no figure counts: rules that reject, and that warn of any at all."""
    rejected, warned = [], []
    for name, column in profile.columns.items():
        before = [one.profile for one in history if column.infinite and name in one.profile.columns]
        shares = np.array([one.columns[name].infinite / max(1, one.rows) for one in before])
        share, limits = column.infinite / max(1, profile.rows), source.drift.get(name, gate.drift)
        if not before or limits is None or share <= 2 * robust.highest(shares):
            continue
        usual = f"usually at most {shares.max():.3%}" if shares.any() else "usually none"
        verb = "is" if column.infinite == 1 else "are"
        message = f"{name}: {column.infinite:,} of {profile.rows:,} values {verb} infinite, {usual} over "
        message += f"{len(history)} accepted batches"
        rule = BrokenRule(check="finite", code="drift_infinite", column=name, failures=column.infinite, message=message)
        if share >= _INFINITE and column.infinite > 1 and limits.reject is not None:
            rejected.append(rule)
        elif limits.warn is not None:
            warned.append(rule)
    return rejected, warned


def _limits(one: Distance, source: Source, gate: BatchGate) -> Limits | None:
    """Limits of a figure; None where one of its columns is not compared. Of two columns the wider ones."""
    chosen = [source.drift.get(name, gate.drift) for name in one.column.split(", ")]
    if any(limits is None for limits in chosen):
        return None
    return max((limits for limits in chosen if limits is not None), key=lambda limits: limits.reject or float("inf"))


def _rule(one: Distance, limits: Limits, batches: int) -> BrokenRule:
    low, high = one.usual
    where = f"{one.column}: " if one.column else ""
    shown = _date if one.code == TIMES else _shown
    message = (
        f"{where}{one.figure} {shown(one.value)}, usually {shown(low)} to {shown(high)} "
        f"over {batches} accepted batches ({robust.told(one.distance, limits.warn, limits.reject)} robust sd)"
    )
    return BrokenRule(check=f"{one.figure} as usual", code=f"drift_{one.code}", column=one.column, message=message)


def _first_of_each(rules: Sequence[BrokenRule]) -> list[BrokenRule]:
    """The worst of each column and reason."""
    return list({(rule.column, rule.code): rule for rule in reversed(rules)}.values())[::-1]


def _shown(value: float) -> str:
    return f"{value:,.4g}"


def _date(seconds: float) -> str:
    return str(np.datetime64(round(seconds), "s").astype("datetime64[D]"))
