"""What validated_batch and the references share: landed bytes through the schema gate, its checks, and its waivers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ml_platform.gates.report import FAMILIES, MAX_CASES, GateReport
from ml_platform.gates.waivers import INPUT as WAIVER
from ml_platform.gates.waivers import looked_at
from ml_platform.stages.stage import Check, CheckResult, Outcome, Stage, Work
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.gates.waivers import Waiver
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest

GATE_LIBRARIES = ("pandera", "polars", "pyarrow")
REPORT_FILE = "report.json"


class GatedStage(Stage):
    """A stage behind the schema gate, whose rejections a person may waive."""

    kinds = ("parquet", "pandera")
    waivable = True
    families: ClassVar[Mapping[str, str]] = FAMILIES
    """The families of rules that it checks, and what each one holds."""

    def checks(self) -> tuple[Check, ...]:
        """One asset check for each family of rules."""
        return tuple(Check(name=name, description=holds) for name, holds in self.families.items())

    def remedy(self, batch: str) -> str:
        """What can be done about what the gate rejected."""
        named = " ".join(filter(None, (self.pipeline.name, batch, "" if batch else f"--stage {self.name}")))
        return (
            f"Land {'the batch' if batch else self.name} again with good data. Or, where it is good as it is, accept "
            f'it: `ml-platform waive {named} --reason "..."`.'
        )


def waivable_inputs(chain: Chain, stage: Stage, batch: str, inputs: Mapping[str, str]) -> Mapping[str, str]:
    """A gate's inputs, and with them the waiver that holds for this very data, where there is one."""
    waiver = chain.waivers.standing(stage.name, batch, looked_at(inputs))
    return inputs if waiver is None else {**inputs, WAIVER: waiver.id}


def waiver_of(chain: Chain, stage: Stage, work: Work) -> Waiver | None:
    """The waiver among a gate's inputs."""
    if WAIVER not in work.inputs:
        return None
    return chain.waivers.standing(stage.name, work.batch, looked_at(work.inputs))


def check_results(reports: Mapping[str, GateReport], *, waived: bool) -> list[CheckResult]:
    """One result a family, over all feeds, with failing rows as tables.

    What is waived still fails, as a warning; so does what could not be looked at because something else had failed.
    """
    names = dict.fromkeys(family.name for report in reports.values() for family in report.families)
    return [_family(name, reports, waived) for name in names]


def _family(name: str, reports: Mapping[str, GateReport], waived: bool) -> CheckResult:
    per_feed = {feed: report.family(name) for feed, report in reports.items()}
    told = {feed: family for feed, family in per_feed.items() if family.status != "passed"}
    failed = any(family.status == "failed" for family in told.values())
    # A line for each feed where all is well: there are thousands of these, and a table costs ten times as much to log.
    metadata: dict[str, Any] = {f"rows checked of {feed}": f.checked for feed, f in per_feed.items() if f.checked}
    if told:
        metadata["feeds"] = [
            {"feed": feed, "status": f.status, "failures": f.failures, "checked": f.checked, "fraction": f.fraction}
            for feed, f in per_feed.items()
        ]
    for feed, family in told.items():
        if family.broken:
            metadata[f"broken rules of {feed}"] = [asdict(rule) for rule in family.broken[:MAX_CASES]]
        if family.cases:
            metadata[f"failing rows of {feed}"] = [_flat(case) for case in family.cases]
    return CheckResult(
        name=name,
        passed=not told,
        description="; ".join(f"{feed}: {f.message}" for feed, f in per_feed.items() if feed in told or f.message),
        warn=bool(told) and (waived or not failed),
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
