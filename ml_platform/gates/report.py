"""What a gate says of one data version: accepted or not, by families of rules with fixed names, as plain JSON.

Nothing heavy is imported here: a definition may name the families without loading polars or pandera.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ml_platform.words import counted

FAMILIES: Mapping[str, str] = {
    "readable": "The file can be read from its first byte to its last, in the declared format.",
    "columns": "The columns that the schema asks for are there, and none that it forbids.",
    "types": "Every column has its declared type, or can become it without losing anything.",
    "nulls": "Nothing is missing (null or not-a-number) where the schema wants a value.",
    "values": "Every value is in its range, among the allowed ones, and passes the column's own checks.",
    "unique": "No key occurs twice in the whole batch.",
    "rules": "Every row, and the batch as a whole, keeps the rules that span columns.",
    "rows": "There is at least one row.",
}
"""Families of rules and what each one holds of a file by itself, in the order in which they are looked at."""

HISTORY_FAMILIES: Mapping[str, str] = {
    "volume": "As many rows came as the accepted batches let expect, and they are not an earlier batch again.",
    "freshness": "Every time stamp lies in the batch's own day, and the batch came in time.",
    "drift": "Its columns are distributed as they were in the accepted batches before it.",
}
"""Families of rules that compare a batch with its name and with the accepted batches before it."""

WAIVABLE = frozenset({"nulls", "values", "unique", "rules", *HISTORY_FAMILIES})
"""Families whose failing rows can be kept, because they are rows of the declared columns and types all the same."""

MAX_CASES = 20
"""How many failing rows a family shows."""

Status = Literal["passed", "warned", "failed", "not reached"]

_LONGEST_TEXT = 200


@dataclass(frozen=True, kw_only=True)
class BrokenRule:
    """One rule that some rows break.

    Args:
        check: the rule in words, such as "in_range(0, 5000)".
        code: a stable reason code: pandera's, or one of the platform's own (see `ml_platform.gates.schema`).
        column: the column it concerns, several joined by ", ", or "" for the whole table.
        failures: rows that break it; 0 where no row can be named (a missing column, a check that crashed).
        message: one sentence.
    """

    check: str
    code: str
    column: str = ""
    failures: int = 0
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class FamilyResult:
    """What came of one family of rules.

    Args:
        name: a key of `FAMILIES` or `HISTORY_FAMILIES`.
        status: "not reached" when an earlier family failed so that there was nothing to look at; "warned" when
            something is told that does not count against the batch.
        failures: rows that break at least one rule of the family.
        checked: rows that were looked at.
        cases: up to 20 failing rows, each `{"row", "column", "check", "value", "record"}`; `row` counts from 0 in
            the order of the file, `record` is the whole row as JSON.
        message: one sentence; what failed, or why it was not reached.
        broken: every rule that failed, the worst first.
    """

    name: str
    status: Status = "passed"
    failures: int = 0
    checked: int = 0
    cases: tuple[Mapping[str, Any], ...] = ()
    message: str = ""
    broken: tuple[BrokenRule, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the family was reached and nothing counts against the batch."""
        return self.status in ("passed", "warned")

    @property
    def fraction(self) -> float:
        """Share of the rows looked at that fail, 0 to 1."""
        return self.failures / self.checked if self.checked else 0.0

    @property
    def codes(self) -> tuple[str, ...]:
        """Reason codes of what failed, each once."""
        return tuple(dict.fromkeys(rule.code for rule in self.broken))


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """The verdict on one landed file.

    Args:
        accepted: whether it may be used.
        feed: name of the source or reference.
        batch: the batch, "" where it is not known.
        rows: rows in the file; those seen until it broke off where it could not be read to its end.
        columns: (name, type) as the canonical file has them; as the file has them when it is rejected.
        families: one result for each of `FAMILIES`, in that order, and for each of `HISTORY_FAMILIES` where a batch
            was compared.
        reason: one readable paragraph.
        quarantined: rows that were set aside; the other `rows - quarantined` are valid.
    """

    accepted: bool
    feed: str
    batch: str = ""
    rows: int = 0
    columns: tuple[tuple[str, str], ...] = ()
    families: tuple[FamilyResult, ...] = field(default_factory=tuple)
    reason: str = ""
    quarantined: int = 0

    def family(self, name: str) -> FamilyResult:
        """The result of the family of that name. Raises KeyError."""
        return {family.name: family for family in self.families}[name]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the families that failed."""
        return tuple(family.name for family in self.families if family.status == "failed")

    @property
    def waivable(self) -> bool:
        """Whether a person may accept it though it is rejected: only rules about its values are broken."""
        return not self.accepted and all(family.passed or family.name in WAIVABLE for family in self.families)

    def kept(self, *, waived: bool) -> bool:
        """Whether its rows may be used: they are accepted, or a person has waived what can be waived."""
        return self.accepted or (waived and self.waivable)

    def to_json(self) -> str:
        """The report as JSON text with sorted keys: equal reports give equal bytes."""
        return (
            json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> GateReport:
        """The report that `to_json` wrote. Unknown keys raise TypeError: the format is versioned with the code."""
        data = json.loads(text)
        families = tuple(
            FamilyResult(
                **{
                    **family,
                    "cases": tuple(family["cases"]),
                    "broken": tuple(BrokenRule(**rule) for rule in family["broken"]),
                }
            )
            for family in data["families"]
        )
        columns = tuple((name, type_) for name, type_ in data["columns"])
        return cls(**{**data, "families": families, "columns": columns})


def describe(subject: str, rows: int, families: Sequence[FamilyResult], quarantined: int = 0) -> str:
    """One readable paragraph: "flights 2013-01-03: accepted, 914 rows." or what failed, first cases included."""
    failed = [family for family in families if family.status == "failed"]
    if not failed and quarantined:
        verb = "is" if quarantined == 1 else "are"
        valid = counted(rows - quarantined, "row")
        return f"{subject}: accepted, {valid}; {quarantined:,} of {rows:,} {verb} set aside."
    if not failed:
        return f"{subject}: accepted, {counted(rows, 'row')}."
    return f"{subject}: " + " ".join(f"{family.name}: {family.message.rstrip('.')}." for family in failed)


def sentence(broken: Sequence[BrokenRule], cases: Sequence[Mapping[str, Any]], rows: int) -> str:
    """What failed in a family, worst rule first: "12 of 914 rows break in_range(0, 5000) on distance, first: ..."."""
    parts = []
    for rule in broken[:5]:
        if rule.message:
            text = rule.message.rstrip(".")
        else:
            text = f"{rule.failures:,} of {rows:,} rows break {rule.check}" + (
                f" on {rule.column}" if rule.column else ""
            )
        first = next((case for case in cases if (case["check"], case["column"]) == (rule.check, rule.column)), None)
        if first is not None and first["row"] is not None:
            text += f", first: row {first['row']:,} has {json.dumps(first['value'], ensure_ascii=False)}"
        parts.append(text)
    if len(broken) > 5:
        parts.append(f"and {counted(len(broken) - 5, 'more rule')}")
    return "; ".join(parts)


def json_safe(value: Any) -> Any:
    """A value as strict JSON can hold it: times as ISO 8601, bytes as hex, not-a-number as text, long texts cut."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else value[:_LONGEST_TEXT] + "…"
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return json_safe(value.hex())
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value[:MAX_CASES]]
    return json_safe(str(value))
