"""What validated_batch and the references share: landed bytes through the schema gate, and the gate's asset checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.gates.report import FAMILIES, GateReport
from ml_platform.stages.stage import Check, CheckResult, Outcome, Work
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Reference, Source


GATE_CODE = "ml_platform.gates.schema:check"
GATE_LIBRARIES = ("pandera", "polars", "pyarrow")
REPORT_FILE = "report.json"


def gate_checks() -> tuple[Check, ...]:
    """One asset check for each family of rules."""
    return tuple(Check(name=name, description=holds) for name, holds in FAMILIES.items())


def check_feeds(
    feeds: Sequence[Source | Reference], landed: Mapping[str, Path], out: Path, memory_mib: int, batch: str = ""
) -> tuple[dict[str, GateReport], dict[str, Path]]:
    """Check each feed's file. Returns the reports and, by name, the canonical Parquet files of accepted feeds."""
    from ml_platform.gates.schema import check

    reports: dict[str, GateReport] = {}
    files: dict[str, Path] = {}
    for feed in feeds:
        target = out / f"{feed.name}.parquet"
        reports[feed.name] = check(landed[feed.name], feed, memory_mib=memory_mib, out=target, batch=batch)
        if reports[feed.name].accepted:
            files[f"{feed.name}.parquet"] = target
    return reports, files


def check_results(reports: Mapping[str, GateReport]) -> list[CheckResult]:
    """One result a family, over all feeds, with failing rows as tables."""
    return [_family(name, reports) for name in FAMILIES]


def _family(name: str, reports: Mapping[str, GateReport]) -> CheckResult:
    per_feed = {feed: report.family(name) for feed, report in reports.items()}
    failed = {feed: family for feed, family in per_feed.items() if not family.passed}
    # A line for each feed where all is well: there are thousands of these, and a table costs ten times as much to log.
    metadata: dict[str, Any] = {f"rows checked of {feed}": family.checked for feed, family in per_feed.items()}
    if failed:
        metadata["feeds"] = [
            {"feed": feed, "status": f.status, "failures": f.failures, "checked": f.checked, "fraction": f.fraction}
            for feed, f in per_feed.items()
        ]
    for feed, family in failed.items():
        if family.cases:
            metadata[f"failing rows of {feed}"] = [_flat(case) for case in family.cases]
    return CheckResult(
        name=name,
        passed=not failed,
        description="; ".join(f"{feed}: {family.message}" for feed, family in failed.items()),
        metadata=metadata,
    )


def _flat(case: Mapping[str, Any]) -> dict[str, Any]:
    """A failing row as one line of a table."""
    return {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in case.items()}


def outcome_of(
    work: Work, reports: Mapping[str, GateReport], files: Mapping[str, Path], *, version: str, folder: Path
) -> Outcome:
    """What the gate's stage made of its work: `version` and `files` count only where every feed is accepted.

    Args:
        work: what was checked.
        reports: by feed.
        files: canonical Parquet files, by name.
        version: data version of their content.
        folder: where the evidence is written, kept whatever the verdict.
    """
    reason = reason_of(reports)
    evidence = folder / REPORT_FILE
    evidence.write_text("{" + ",\n".join(f'"{feed}": {report.to_json()}' for feed, report in reports.items()) + "}")
    return Outcome(
        batch=work.batch,
        data_version=short_hash({"rejected": reason, **work.inputs}) if reason else version,
        files={REPORT_FILE: evidence, **({} if reason else files)},
        facts=facts_of(reports),
        checks=check_results(reports),
        rejected=reason,
        gated=True,
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
