"""Are the columns of a batch of the types that they were? One that is not is told, and compared no further.

    result = judge(profile, history, source, gate)

The values of a text and of a number are nothing to compare, and a schema that leaves a column out lets it be either.
Which integer or float it is makes no difference, and a column of type Null, which has no values, is of every type.

Reason codes: drift_type, and those of `ml_platform.gates.drift`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ml_platform.feeds import Source
from ml_platform.gates import drift
from ml_platform.gates.declaration import BatchGate
from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import ColumnProfile, Profile
from ml_platform.gates.report import BrokenRule, FamilyResult, sentence


def judge(profile: Profile, history: Sequence[Accepted], source: Source, gate: BatchGate) -> FamilyResult:
    """As `drift.judge`, of a batch whose columns may have other types than those before it.

    A column whose type no accepted batch had rejects; of one that had several types, the batches of its type count.
    """
    history = history[-gate.history :]
    before = [one.profile for one in history]
    sorts = {name: set(filter(None, (_sort(one.columns.get(name)) for one in before))) for name in profile.columns}
    now = {name: sort for name, column in profile.columns.items() if (sort := _sort(column))}
    changed = [name for name, sort in now.items() if sorts[name] and sort not in sorts[name]]
    mixed = [name for name, sort in now.items() if sorts[name] - {sort}]
    if not mixed:
        return drift.judge(profile, history, source, gate)
    others = [
        [name for name in mixed if name in changed or _sort(one.columns.get(name)) not in ("", now[name])]
        for one in before
    ]
    alike = [replace(one, profile=_without(one.profile, names)) for one, names in zip(history, others, strict=True)]
    result = drift.judge(_without(profile, changed), alike, source, gate)
    if len(history) < gate.least:
        return result
    rejected, warned = [], []
    for name in changed:
        limits = source.drift.get(name, gate.drift)
        was, type_ = " or ".join(sorted(sorts[name])), profile.columns[name].type
        message = f"{name} was {was} in the accepted batches, is {type_}"
        rule = BrokenRule(check="type as usual", code="drift_type", column=name, message=message)
        if limits is not None and limits.reject is not None:
            rejected.append(rule)
        elif limits is not None and limits.warn is not None:
            warned.append(rule)
    if not rejected and (result.status == "failed" or not warned):
        return result
    # What only warns is not told of a batch that is rejected.
    told = result.broken if result.status == ("failed" if rejected else "warned") else ()
    broken = (*(rejected or warned), *told)
    return replace(
        result, status="failed" if rejected else "warned", broken=broken, message=sentence(broken, [], profile.rows)
    )


def _sort(column: ColumnProfile | None) -> str:
    """What a column is as far as its values can be compared; "" where it has none, or is not there."""
    if column is None or column.type == "Null":
        return ""
    if column.kind == "text" or (column.kind == "number" and not column.type.startswith("Duration")):
        return column.kind
    return column.type if column.kind == "other" else column.type.split("(")[0]


def _without(profile: Profile, names: Sequence[str]) -> Profile:
    if not names:
        return profile
    return replace(profile, columns={name: its for name, its in profile.columns.items() if name not in names})
