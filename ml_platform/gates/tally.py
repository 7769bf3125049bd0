"""Adds up what a gate finds, chunk by chunk, into the families of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

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


@dataclass
class _Family:
    reached: bool = False
    failures: int = 0
    broken: dict[tuple[str, str, str], BrokenRule] = field(default_factory=dict)
    cases: list[Mapping[str, Any]] = field(default_factory=list)


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

    def reach(self, *names: str) -> None:
        """Note that these families were looked at, over the whole file."""
        for name in names:
            self._families[name].reached = True

    def failed(self, *names: str) -> bool:
        """Whether any of these families failed; with no name, whether any did at all."""
        return any(self._families[name].broken for name in names or FAMILIES)

    def breaks(self, family: str, rule: BrokenRule, cases: Sequence[Mapping[str, Any]] = (), failures: int = 0) -> None:
        """A rule is broken. Its counts add up over calls; `failures` are rows that the family has not counted yet."""
        entry = self._families[family]
        key = (rule.check, rule.code, rule.column)
        before = entry.broken.get(key)
        entry.broken[key] = replace(rule, failures=before.failures + rule.failures) if before else rule
        entry.failures += failures
        entry.cases += cases[: max(0, MAX_CASES - len(entry.cases))]

    def rows_break(
        self, family: str, frame: pl.DataFrame, first_row: int, masks: Sequence[tuple[BrokenRule, pl.Series]]
    ) -> None:
        """Rows of a chunk break rules: `masks` are true there. `frame` begins at row `first_row` of the file."""
        entry = self._families[family]
        anything = pl.select(pl.any_horizontal(mask for _, mask in masks)).to_series()
        room = MAX_CASES - len(entry.cases)
        # Each rule shows some rows, rather than the first one all.
        share = max(1, room // len(masks)) if room > 0 else 0
        for rule, mask in masks:
            cases = [
                show(frame, index, first_row + index, rule.column, rule.check)
                for index in mask.arg_true().head(share).to_list()
            ]
            self.breaks(family, replace(rule, failures=int(mask.sum())), cases)
        entry.failures += int(anything.sum())

    def stop(
        self, family: str, code: str, message: str, cases: Sequence[Mapping[str, Any]] = (), failures: int = 0
    ) -> None:
        """The file cannot be read any further."""
        if family != "readable":
            self.reach("readable")
        self.breaks(family, BrokenRule(check=code, code=code, failures=failures, message=message), cases, failures)

    def report(self) -> GateReport:
        """The verdict: accepted when every family was looked at and none failed."""
        results = [self._result(name, entry) for name, entry in self._families.items()]
        subject = f"{self._feed} {self._batch}".rstrip()
        return GateReport(
            accepted=all(result.passed for result in results),
            feed=self._feed,
            batch=self._batch,
            rows=self.rows,
            columns=tuple((name, str(type_)) for name, type_ in self.columns.items()),
            families=tuple(results),
            reason=describe(subject, self.rows, results),
        )

    def _result(self, name: str, entry: _Family) -> FamilyResult:
        if entry.broken:
            broken = sorted(entry.broken.values(), key=lambda rule: (-rule.failures, rule.column, rule.check))
            cases = tuple(sorted(entry.cases, key=lambda case: -1 if case["row"] is None else case["row"]))
            message = sentence(broken, cases, self.rows)
            checked = max(self.rows, entry.failures)
            return FamilyResult(
                name=name,
                status="failed",
                failures=entry.failures,
                checked=checked,
                cases=cases,
                message=message,
                broken=tuple(broken),
            )
        if not entry.reached:
            failed = [other for other, its in self._families.items() if its.broken]
            return FamilyResult(name=name, status="not reached", message=f"not reached, since {failed[0]} failed")
        return FamilyResult(name=name, checked=self.rows)


def show(frame: pl.DataFrame, index: int, row: int, column: str, check: str) -> dict[str, Any]:
    """A failing row as a case: which row and column, the rule, the value, and the whole row."""
    record = {key: json_safe(value) for key, value in frame.row(index, named=True).items()}
    names = column.split(", ") if column else []
    value = record.get(names[0]) if len(names) == 1 else {name: record.get(name) for name in names} or None
    return {"row": row, "column": column, "check": check, "value": value, "record": record}
