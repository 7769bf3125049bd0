"""What validated_batch and the references share: landed bytes through the schema gate, its checks, and its waivers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.gates.report import FAMILIES, GateReport
from ml_platform.gates.waivers import INPUT as WAIVER
from ml_platform.stages.stage import Check, CheckResult, Outcome, Stage, Work
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.gates.waivers import Waiver
    from ml_platform.pipeline import Reference, Source
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest

GATE_CODE = "ml_platform.gates.schema:check"
GATE_LIBRARIES = ("pandera", "polars", "pyarrow")
REPORT_FILE = "report.json"


class GatedStage(Stage):
    """A stage behind the schema gate, whose rejections a person may waive."""

    kinds = ("parquet", "pandera")
    waivable = True

    def checks(self) -> tuple[Check, ...]:
        """One asset check for each family of rules."""
        return tuple(Check(name=name, description=holds) for name, holds in FAMILIES.items())

    def remedy(self, batch: str) -> str:
        """What can be done about what the gate rejected."""
        named = " ".join(filter(None, (self.pipeline.name, batch, "" if batch else f"--stage {self.name}")))
        return (
            f"Land {'the batch' if batch else self.name} again with good data. Or, where it is good as it is, accept "
            f'it: `ml-platform waive {named} --reason "..."`.'
        )


def waivable_inputs(chain: Chain, stage: Stage, batch: str, inputs: Mapping[str, str]) -> Mapping[str, str]:
    """A gate's inputs, and with them the waiver that holds for this very data, where there is one."""
    (version,) = inputs.values()
    waiver = chain.waivers.standing(stage.name, batch, version)
    return inputs if waiver is None else {**inputs, WAIVER: waiver.id}


def waiver_of(chain: Chain, stage: Stage, work: Work) -> Waiver | None:
    """The waiver among a gate's inputs."""
    if WAIVER not in work.inputs:
        return None
    (version,) = (version for name, version in work.inputs.items() if name != WAIVER)
    return chain.waivers.standing(stage.name, work.batch, version)


def check_feeds(
    feeds: Sequence[Source | Reference],
    landed: Mapping[str, Path],
    out: Path,
    memory_mib: int,
    batch: str = "",
    *,
    waived: bool = False,
) -> tuple[dict[str, GateReport], dict[str, Path]]:
    """Check each feed's file. An optional source without one is a file without rows.

    Returns:
        The reports and, by name, the canonical Parquet files of the feeds that are accepted, or may be and are waived.
    """
    from ml_platform.gates.absent import absent
    from ml_platform.gates.schema import check

    reports: dict[str, GateReport] = {}
    files: dict[str, Path] = {}
    for feed in feeds:
        target = out / f"{feed.name}.parquet"
        if feed.name in landed:
            report = check(landed[feed.name], feed, memory_mib=memory_mib, out=target, batch=batch, waived=waived)
        else:
            report = absent(feed, target, batch)
        reports[feed.name] = report
        if report.accepted or (waived and report.waivable):
            files[f"{feed.name}.parquet"] = target
    return reports, files


def check_results(reports: Mapping[str, GateReport], *, waived: bool) -> list[CheckResult]:
    """One result a family, over all feeds, with failing rows as tables. What is waived still fails, as a warning."""
    return [_family(name, reports, waived) for name in FAMILIES]


def _family(name: str, reports: Mapping[str, GateReport], waived: bool) -> CheckResult:
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
        warn=waived and bool(failed),
        metadata=metadata,
    )


def _flat(case: Mapping[str, Any]) -> dict[str, Any]:
    """A failing row as one line of a table."""
    return {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in case.items()}


def outcome_of(
    work: Work,
    reports: Mapping[str, GateReport],
    files: Mapping[str, Path],
    *,
    version: str,
    folder: Path,
    waiver: Waiver | None,
) -> Outcome:
    """What the gate's stage made of its work: `version` and `files` count only where every feed has its file.

    Args:
        work: what was checked.
        reports: by feed.
        files: canonical Parquet files, by name.
        version: data version of their content.
        folder: where the evidence is written, kept whatever the verdict.
        waiver: the one that holds for this data, if any. It counts only where the gate would reject.
    """
    reason = reason_of(reports)
    waived = bool(reason) and waiver is not None and len(files) == len(reports)
    rejected = "" if waived else reason
    evidence = folder / REPORT_FILE
    evidence.write_text("{" + ",\n".join(f'"{feed}": {report.to_json()}' for feed, report in reports.items()) + "}")
    facts = facts_of(reports)
    if waived and waiver is not None:
        facts[WAIVER] = {"id": waiver.id, "by": waiver.by, "reason": waiver.reason, "when": waiver.when}
        facts[WAIVER] |= {"expires": waiver.expires, "said": reason}
    return Outcome(
        batch=work.batch,
        data_version=short_hash({"rejected": rejected, **work.inputs}) if rejected else version,
        files={REPORT_FILE: evidence, **({} if rejected else files)},
        facts=facts,
        checks=check_results(reports, waived=waived),
        rejected=rejected,
        gated=True,
        waived=waived,
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


def waiver_shown(manifest: Manifest) -> dict[str, str]:
    """Who waived what the gate said, and why, as metadata; empty where nobody had to."""
    waiver = manifest.facts.get(WAIVER)
    if not waiver:
        return {}
    from ml_platform.gates.waivers import shown_time

    until = shown_time(waiver["expires"]) if waiver["expires"] else "for good"
    return {
        "verdict": "waived",
        "waived by": f"{waiver['by']}, {shown_time(waiver['when'])}",
        "waived until": until,
        "waived because": waiver["reason"],
        "the gate said": waiver["said"],
    }
