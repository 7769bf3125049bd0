"""What validated_batch and the references share: landed bytes through the schema gate, and the gate's asset checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.gates.report import FAMILIES, GateReport
from ml_platform.stages.stage import Check, CheckResult

if TYPE_CHECKING:
    from ml_platform.pipeline import Reference, Source

_QUESTIONS: Mapping[str, str] = {
    "readable": "Is every file complete and of its declared format?",
    "columns": "Are all declared columns there, and no undeclared ones where the schema is strict?",
    "types": "Has every column its declared type?",
    "nulls": "Are values present where the schema demands them?",
    "values": "Do values lie in their declared ranges and sets?",
    "unique": "Are keys unique over the whole batch?",
    "rules": "Do the rules that span columns hold?",
    "rows": "Are there rows at all?",
}


def gate_checks() -> tuple[Check, ...]:
    """One asset check for each family of rules."""
    return tuple(Check(name=name, description=_QUESTIONS.get(name, f"Do the {name} hold?")) for name in FAMILIES)


def check_feeds(
    feeds: Sequence[Source | Reference], landed: Mapping[str, Path], out: Path, memory_mib: int
) -> tuple[dict[str, GateReport], dict[str, Path]]:
    """Check each feed's file. Returns the reports and, by name, the canonical Parquet files of accepted feeds."""
    from ml_platform.gates.schema import check

    reports: dict[str, GateReport] = {}
    files: dict[str, Path] = {}
    for feed in feeds:
        target = out / f"{feed.name}.parquet"
        reports[feed.name] = check(landed[feed.name], feed, memory_mib=memory_mib, out=target)
        if reports[feed.name].accepted:
            files[f"{feed.name}.parquet"] = target
    return reports, files


def check_results(reports: Mapping[str, GateReport]) -> list[CheckResult]:
    """One result a family, over all feeds, with failing rows as tables."""
    return [_family(name, reports) for name in FAMILIES]


def _family(name: str, reports: Mapping[str, GateReport]) -> CheckResult:
    per_feed = {feed: next(f for f in report.families if f.name == name) for feed, report in reports.items()}
    failed = {feed: family for feed, family in per_feed.items() if not family.passed}
    metadata: dict[str, Any] = {
        "feeds": [
            {"feed": feed, "passed": f.passed, "failures": f.failures, "checked": f.checked, "fraction": f.fraction}
            for feed, f in per_feed.items()
        ]
    }
    for feed, family in failed.items():
        if family.cases:
            metadata[f"failing rows of {feed}"] = [dict(case) for case in family.cases]
    return CheckResult(
        name=name,
        passed=not failed,
        description="; ".join(f"{feed}: {family.message}" for feed, family in failed.items()),
        metadata=metadata,
    )


def reason_of(reports: Mapping[str, GateReport]) -> str:
    """Why the gate refused, or "" where it did not."""
    return " ".join(report.reason for report in reports.values() if not report.accepted)


def facts_of(reports: Mapping[str, GateReport]) -> dict[str, Any]:
    """Row counts and columns of each feed."""
    return {
        "rows": {feed: report.rows for feed, report in reports.items()},
        "columns": {feed: [list(column) for column in report.columns] for feed, report in reports.items()},
    }
