"""What a report has to say of a file, one finding for each rule, the same for every format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ml_platform.gates.report import BrokenRule, FamilyResult, GateReport, Status, sentence

WORDS: Mapping[Status, str] = {
    "passed": "passed",
    "warned": "warned",
    "failed": "FAILED",
    "not reached": "not reached",
}


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """A file and what the gate says of it.

    Args:
        path: as the reader knows it: relative to the working folder where it lies in it, or a URL.
        report: the verdict.
    """

    path: str
    report: GateReport

    @property
    def subject(self) -> str:
        """The source and the batch, such as "flights 2013-01-03"."""
        return f"{self.report.feed} {self.report.batch}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule that is broken, or that warns.

    Args:
        level: "error" counts against the batch.
        family: name of the family of rules.
        rule: the rule in words; "" where the family says something as a whole.
        column: what it concerns, "" for the whole table.
        failures: rows that break it; 0 where no row can be named.
        checked: rows that were looked at.
        text: one sentence, with the first failing row.
    """

    level: Literal["error", "warning"]
    family: str
    rule: str
    column: str
    failures: int
    checked: int
    text: str


def findings(report: GateReport) -> Iterator[Finding]:
    """Every rule that failed, then every one that warns, in the order of the families."""
    for status in ("failed", "warned"):
        for family in report.families:
            if family.status == status:
                for rule in family.broken or (BrokenRule(check="", code="", message=family.message),):
                    yield _finding(family, rule, report.rows)


def _finding(family: FamilyResult, rule: BrokenRule, rows: int) -> Finding:
    return Finding(
        level="error" if family.status == "failed" else "warning",
        family=family.name,
        rule=rule.check,
        column=rule.column,
        failures=rule.failures,
        checked=family.checked,
        text=sentence([rule], family.cases, family.checked or rows),
    )
