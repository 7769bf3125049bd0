"""Adds up what a gate finds, chunk by chunk and part by part, into the families of a report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from pandera.errors import SchemaErrorReason

from ml_platform.gates.judging import Found, Judged
from ml_platform.gates.report import (
    FAMILIES,
    MAX_CASES,
    BrokenRule,
    FamilyResult,
    GateReport,
    describe,
    json_safe,
    sentence,
)

_CRASHED = SchemaErrorReason.CHECK_ERROR.value
_Key = tuple[str, str, str]


@dataclass
class _Family:
    reached: bool = False
    # What is broken as a whole; no row can be set aside for it.
    refused: bool = False
    failures: int = 0
    broken: dict[_Key, BrokenRule] = field(default_factory=dict)
    # The first rows that break each rule: of which rows there are more is not known before the end.
    cases: dict[_Key, list[Mapping[str, Any]]] = field(default_factory=dict)


class Tally:
    """What was found so far in one file.

    Args:
        feed: name of the source or reference.
        batch: name of the batch, or "".
    """

    def __init__(self, feed: str, batch: str) -> None:
        self._feed, self._batch = feed, batch
        self._families = {name: _Family() for name in FAMILIES}
        self.rows = 0
        self.columns: Mapping[str, pl.DataType] = {}
        self.quarantined = 0
        self.remark = ""

    def reach(self, *names: str) -> None:
        """Note that these families were looked at, over the whole file."""
        for name in names:
            self._families[name].reached = True

    def forget(self, *names: str) -> None:
        """Take these families as never looked at: something stands in the way of judging them over the whole file."""
        for name in names:
            self._families[name] = _Family()

    def failed(self, *names: str) -> bool:
        """Whether anything is broken in any of these families; with no name, in any at all."""
        return any(self._families[name].broken for name in names or FAMILIES)

    def refused(self, *names: str) -> bool:
        """As `failed`, of what no row can be set aside for."""
        return any(self._families[name].refused for name in names or FAMILIES)

    def breaks(self, family: str, rule: BrokenRule, cases: Sequence[Mapping[str, Any]] = ()) -> None:
        """A rule is broken, by no single row or by rows that depend on the others; it cannot be mended row by row."""
        self._families[family].refused = True
        self._add(family, rule, cases)
        self._families[family].failures += rule.failures

    def rows_broke(self, family: str, rule: BrokenRule, cases: Sequence[Mapping[str, Any]]) -> None:
        """Rows break a rule; `rule.failures` of them, which the family has not counted yet."""
        self._add(family, rule, cases)
        self._families[family].failures += rule.failures

    def judged(self, judged: Judged, place: Callable[[int], int]) -> None:
        """What was found in a chunk. `place` tells the row of the file by the row of the chunk."""
        for found in judged.found:
            self._rows_break(found, place)
        for family, rule in judged.refused:
            self.breaks(family, rule)

    def merge(self, other: Tally) -> None:
        """Add what was found in a later part of the same file."""
        self.rows += other.rows
        for name, its in other._families.items():
            mine = self._families[name]
            for key, rule in its.broken.items():
                self._add(name, rule, its.cases[key])
            mine.refused |= its.refused
            mine.failures += its.failures

    def stop(
        self, family: str, code: str, message: str, cases: Sequence[Mapping[str, Any]] = (), failures: int = 0
    ) -> None:
        """The file cannot be read any further. What its beginning broke says nothing of the whole, and is forgotten."""
        self.forget(*(name for name in FAMILIES if name not in ("readable", "columns")))
        if family != "readable":
            self.reach("readable")
        self.breaks(family, BrokenRule(check=code, code=code, failures=failures, message=message), cases)

    def report(self) -> GateReport:
        """The verdict: accepted when every family was looked at and none failed, or only rows failed and are aside."""
        results = [self._result(name, entry) for name, entry in self._families.items()]
        subject = f"{self._feed} {self._batch}".rstrip()
        return GateReport(
            accepted=all(result.passed for result in results),
            feed=self._feed,
            batch=self._batch,
            rows=self.rows,
            columns=tuple((name, str(type_)) for name, type_ in self.columns.items()),
            families=tuple(results),
            reason=describe(subject, self.rows, results, self.quarantined),
            quarantined=self.quarantined,
        )

    def _add(self, family: str, rule: BrokenRule, cases: Sequence[Mapping[str, Any]]) -> None:
        entry = self._families[family]
        key = _key(rule)
        before = entry.broken.get(key)
        entry.broken[key] = replace(before, failures=before.failures + rule.failures) if before else rule
        shown = entry.cases.setdefault(key, [])
        shown += cases[: MAX_CASES - len(shown)]

    def _rows_break(self, found: Found, place: Callable[[int], int]) -> None:
        entry = self._families[found.family]
        for rule, mask in found.masks:
            first = np.flatnonzero(mask)[: MAX_CASES - len(entry.cases.get(_key(rule), ()))]
            cases = [
                show(found.frame, index, place(row), rule.column, rule.check)
                for index, row in zip(first.tolist(), found.place(first).tolist(), strict=True)
            ]
            self._add(found.family, replace(rule, failures=int(mask.sum())), cases)
        entry.failures += int(found.breaking.sum())

    def _result(self, name: str, entry: _Family) -> FamilyResult:
        if not entry.broken:
            if entry.reached:
                return FamilyResult(name=name, checked=self.rows)
            failed = [other for other, its in self._families.items() if its.broken]
            return FamilyResult(name=name, status="not reached", message=f"not reached, since {failed[0]} failed")
        broken = _without_halves(entry.broken)
        # Where a check crashed, how many rows it had found before says nothing.
        whole = len(broken) == len(entry.broken)
        failures = entry.failures if whole else max(rule.failures for rule in broken)
        # In turns: each rule shows some rows, rather than the first one all.
        turns = itertools.zip_longest(*(entry.cases[_key(rule)] for rule in broken))
        cases = [case for turn in turns for case in turn if case is not None][:MAX_CASES]
        cases.sort(key=lambda case: -1 if case["row"] is None else case["row"])
        message = sentence(broken, cases, self.rows)
        if self.quarantined:
            message = f"{failures:,} of {self.rows:,} rows set aside: {message}"
        elif self.remark and name == next(other for other, its in self._families.items() if its.broken):
            message = f"{message} ({self.remark})"
        return FamilyResult(
            name=name,
            status="warned" if self.quarantined else "failed",
            failures=failures,
            checked=max(self.rows, failures),
            cases=tuple(cases),
            message=message,
            broken=tuple(broken),
        )


def _key(rule: BrokenRule) -> _Key:
    return rule.check, rule.code, rule.column


def _without_halves(found: Mapping[_Key, BrokenRule]) -> list[BrokenRule]:
    """The broken rules, the worst first; of a check that crashed only that it did, not what it said until then."""
    crashed = {(check, column) for check, code, column in found if code == _CRASHED}
    kept = [rule for (check, code, column), rule in found.items() if code == _CRASHED or (check, column) not in crashed]
    return sorted(kept, key=lambda rule: (-rule.failures, rule.column, rule.check))


def show(frame: pl.DataFrame, index: int, row: int, column: str, check: str) -> dict[str, Any]:
    """A failing row as a case: which row and column, the rule, the value, and the whole row."""
    record = {key: json_safe(value) for key, value in frame.row(index, named=True).items()}
    names = column.split(", ") if column else []
    value = record.get(names[0]) if len(names) == 1 else {name: record.get(name) for name in names} or None
    return {"row": row, "column": column, "check": check, "value": value, "record": record}
