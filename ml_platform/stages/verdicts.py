"""What the gates of a pipeline have said, read back from the store: for people, and changed by nobody.

Of each batch it is the verdict that was told last, as Dagster's event log has it; on a machine that shares the store
and has no such log, the one that was given last.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_platform.gates.report import HISTORY_FAMILIES, GateReport, Status
from ml_platform.gates.waivers import INPUT as WAIVER
from ml_platform.stages.gated import REPORT_FILE
from ml_platform.stages.history import STAGE, profile_file
from ml_platform.stages.published import FINGERPRINT_TAG
from ml_platform.stages.stage import UNPARTITIONED
from ml_platform.store.manifest import Manifest

if TYPE_CHECKING:
    from ml_platform.gates.profile import Profile
    from ml_platform.stages.chain import Chain
    from ml_platform.store import Store

WHOLE = ("training_set", "trained_model", "evaluation", "registered_model")
"""Unpartitioned stages that have checks of their own; the references come before them."""

_WORST: tuple[Status, ...] = ("failed", "not reached", "warned", "passed")


@dataclass(frozen=True, kw_only=True)
class BatchVerdict:
    """What the data gate said of one batch.

    Args:
        batch: its name.
        manifest: of the validated batch, or of the rejected one.
        reports: by source.
        withdrawn: what a person said who took it out of training; "" where nobody did.
    """

    batch: str
    manifest: Manifest
    reports: Mapping[str, GateReport]
    withdrawn: str = ""

    @property
    def verdict(self) -> str:
        """accepted, rejected or waived."""
        return self.manifest.verdict

    @property
    def waiver(self) -> Mapping[str, str] | None:
        """Who accepted it though the gate would have rejected it, why, and until when."""
        waiver: Mapping[str, str] | None = self.manifest.facts.get(WAIVER)
        return waiver

    @cached_property
    def families(self) -> dict[str, Status]:
        """The worst status of each family over all sources, in the order of the families."""
        return {name: self.worst(name, self.reports) for name in family_names(self.reports.values())}

    def worst(self, family: str, sources: Collection[str]) -> Status:
        """The worst status of a family over some of the sources; "not reached" where none has it."""
        found = {its.status for source in sources for its in self.reports[source].families if its.name == family}
        return next((status for status in _WORST if status in found), "not reached")

    @property
    def quiet(self) -> bool:
        """Whether it was accepted, and nothing is told."""
        return self.verdict == "accepted" and not self.withdrawn and set(self.families.values()) <= {"passed"}

    @property
    def told(self) -> str:
        """Why, in a line: what failed, or what warns."""
        said = (
            f"{report.feed}: {family.name}: {family.message.rstrip('.')}."
            for report in self.reports.values()
            for family in report.families
            if family.status in ("failed", "warned")
        )
        return " ".join(said)

    def profile(self, store: Store, source: str) -> Profile | None:
        """Of a source's rows; None where there is none that can be shown: they could not be read as declared, or
        another version of the platform has looked at them."""
        from ml_platform.gates.profile import OtherFormatError, Profile

        file = next((file for file in self.manifest.files if file.name == profile_file(source)), None)
        try:
            return Profile.from_json(store.read_bytes(file)) if file is not None else None
        except OtherFormatError:
            return None


@dataclass(frozen=True, kw_only=True)
class StageVerdict:
    """What the checks of an unpartitioned stage said: `checks` are those of its manifest's facts."""

    stage: str
    manifest: Manifest
    checks: tuple[Mapping[str, Any], ...]


def family_names(reports: Iterable[GateReport]) -> tuple[str, ...]:
    """Names of all families of some reports, those that a file says by itself first."""
    names = dict.fromkeys(family.name for report in reports for family in report.families)
    return (*(name for name in names if name not in HISTORY_FAMILIES), *(n for n in HISTORY_FAMILIES if n in names))


def batch_verdicts(chain: Chain, batches: Collection[str] | None = None) -> list[BatchVerdict]:
    """What was last said of each batch (all, unless named), in name order. Those never looked at are left out."""
    last = {manifest.batch: manifest for manifest in chain.store.artifacts(chain.pipeline.name, STAGE)}
    wanted = sorted(last if batches is None else last.keys() & set(batches))
    tags = chain.published.tags(STAGE, wanted)
    prints = {batch: its[FINGERPRINT_TAG] for batch, its in tags.items() if FINGERPRINT_TAG in its}
    said = chain.lookup(STAGE, prints.values())
    manifests = {batch: said.get(prints.get(batch, ""), last[batch]) for batch in wanted}
    files = {batch: manifest.file(REPORT_FILE) for batch, manifest in manifests.items()}
    paths = dict(zip(files, chain.store.paths(files.values()), strict=True))
    withdrawn = chain.withdrawals.holding()
    return [
        BatchVerdict(
            batch=batch,
            manifest=manifest,
            reports={
                source: GateReport.from_json(json.dumps(report))
                for source, report in json.loads(paths[batch].read_bytes()).items()
            },
            withdrawn=withdrawn[batch].describe() if batch in withdrawn else "",
        )
        for batch, manifest in manifests.items()
    ]


def refused_batches(chain: Chain) -> frozenset[str]:
    """Batches that the data gate rejected when it last looked, and those that are withdrawn: nothing learns from them.

    A batch that has landed again since counts as it was until it is judged again.
    """
    rejected: Collection[str] = chain.published.rejections(STAGE).keys()
    if not (rejected or chain.published.versions(STAGE)):
        last = {manifest.batch: manifest for manifest in chain.store.artifacts(chain.pipeline.name, STAGE)}
        rejected = [batch for batch, manifest in last.items() if manifest.verdict == "rejected"]
    return frozenset(rejected) | chain.withdrawals.holding().keys()


def stage_verdicts(chain: Chain) -> list[StageVerdict]:
    """What the checks of references, training set, model and registration said last, in the order of the chain."""
    found = []
    for name in (*(reference.name for reference in chain.pipeline.references), *WHOLE):
        # What was published or rejected here, whichever came last; else the store's last word, which may be another's.
        told = chain.published.tags(name, [UNPARTITIONED]).get(UNPARTITIONED, {}).get(FINGERPRINT_TAG, "")
        there = chain.store.artifacts(chain.pipeline.name, name)
        manifest = chain.lookup(name, [told]).get(told) if told else None
        manifest = manifest or (there[-1] if there else None)
        if manifest is not None and manifest.batch == UNPARTITIONED and manifest.facts.get("checks"):
            answers = chain.stages[name].answers(chain, manifest)
            found.append(StageVerdict(stage=name, manifest=manifest, checks=tuple(answers)))
    return found
