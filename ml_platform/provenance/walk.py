"""Everything that a model was made of: from its evaluation along the inputs of each artifact down to what landed.

An artifact names its inputs by stage, batch and data version. Which artifact that was follows from when it was made:
the last one of that content before the one that reads it. Each stage is listed once and its manifests are read at
once, so half a year of days takes a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ml_platform.gates.waivers import INPUT as WAIVER
from ml_platform.gates.waivers import WAIVED_BEFORE

if TYPE_CHECKING:
    from ml_platform.store import Store
    from ml_platform.store.manifest import Manifest

TRAINED = "trained_model"
VALIDATED = "validated_batch"
PARENT = "champion"
"""Name of the input of a trained model that is the model it was trained on from."""
COMPARED = "compared with"
"""Fact of a validated batch: the accepted batches that the gate compared it with."""


@dataclass(kw_only=True)
class Behind:
    """The artifacts behind a model.

    Args:
        used: what it was made of, by stage and batch ("" for what belongs to none).
        evidence: further batches that a gate compared those with, and what these were made of: a verdict rests on them,
            no row of theirs was learned from.
        parent: the trained model whose weights it began with.
        missing: inputs, such as "baseline of 3fc1...", that are no longer in the store.
    """

    used: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    evidence: list[Manifest] = field(default_factory=list)
    parent: Manifest | None = None
    missing: list[str] = field(default_factory=list)


def behind(store: Store, ends: Iterable[Manifest]) -> Behind:
    """Find what some artifacts, such as a model's evaluation, training set and the model itself, were made of.

    Args:
        store: where they are.
        ends: where the walk begins. What one of them names is looked for among them first.
    """
    return _Walk(store, list(ends)).walk()


class _Walk:
    def __init__(self, store: Store, ends: list[Manifest]) -> None:
        self._store, self._ends = store, ends
        self._pipeline = ends[0].pipeline
        self._stages: dict[str, dict[tuple[str, str], list[Manifest]]] = {}
        self._accepted: dict[str, list[Manifest]] = {}
        self._waived: Mapping[str, Mapping[str, str]] = {}
        for end in ends:
            self._waived = end.facts.get(WAIVED_BEFORE) or self._waived
        self._found = Behind()

    def walk(self) -> Behind:
        found, open_ = self._found, list(self._ends)
        while open_:
            fresh = [m for m in open_ if found.used.setdefault(m.stage, {}).setdefault(m.batch, m) is m]
            open_ = list({id(m): m for each in fresh for m in self._inputs(each)}.values())
        self._read_facts()
        self._evidence()
        return found

    def _inputs(self, consumer: Manifest) -> Iterable[Manifest]:
        for name, version in consumer.inputs.items():
            if consumer.stage == TRAINED and name == PARENT:
                parent = self._parent(consumer, version)
                self._found.parent = self._found.parent or parent
                continue
            stage, _, batch = name.partition("/")
            if not (known := self._listed(stage)):
                continue  # no artifact: a waiver, the landing place, how much there was to compare with
            if manifest := self._choose(name, known.get((batch, version), ()), consumer):
                yield manifest
            else:
                self._found.missing.append(f"{name}, data version {version}")

    def _listed(self, stage: str) -> Mapping[tuple[str, str], list[Manifest]]:
        """A stage's artifacts by batch and data version, each the oldest first."""
        if stage not in self._stages:
            by_content: dict[tuple[str, str], list[Manifest]] = {}
            for manifest in self._store.artifacts(self._pipeline, stage) if stage.isidentifier() else ():
                by_content.setdefault((manifest.batch, manifest.data_version), []).append(manifest)
            self._stages[stage] = by_content
        return self._stages[stage]

    def _choose(self, name: str, some: Iterable[Manifest], consumer: Manifest) -> Manifest | None:
        """The artifact that a consumer has read, of those with the content that it names."""
        some = [manifest for manifest in some if manifest.verdict != "rejected"]
        for end in self._ends:
            if any(end.fingerprint == manifest.fingerprint for manifest in some):
                return end
        waiver = self._waived.get(name, {}).get("id")
        fitting = [m for m in some if (m.inputs.get(WAIVER) if m.verdict == "waived" else None) == waiver] or some
        before = [manifest for manifest in fitting if manifest.created <= consumer.created]
        return before[-1] if before else next(iter(fitting), None)

    def _parent(self, trained: Manifest, version: str) -> Manifest | None:
        """Only the parent itself: what it was made of is in its own record."""
        named = trained.facts["warm_start"]["fingerprint"]
        found = self._listed(TRAINED).get(("", version), ())
        if not (parents := [manifest for manifest in found if manifest.fingerprint == named]):
            self._found.missing.append(f"the parent model {named}")
        return parents[0] if parents else None

    def _read_facts(self) -> None:
        """Put manifests with their facts in place of those whose facts would be read one by one."""
        for stage, by_batch in self._found.used.items():
            prints = [manifest.fingerprint for manifest in by_batch.values()]
            whole = self._store.manifests(self._pipeline, stage, prints)
            for batch, manifest in by_batch.items():
                by_batch[batch] = self._same(whole, manifest)

    @staticmethod
    def _same(whole: Mapping[str, Manifest], manifest: Manifest) -> Manifest:
        read = whole.get(manifest.fingerprint)
        return read if read is not None and read.data_version == manifest.data_version else manifest

    def _evidence(self) -> None:
        """What gates compared the batches with, that is not itself among them."""
        used = self._found.used.get(VALIDATED, {})
        for (batch, _), manifests in self._listed(VALIDATED).items() if used else ():
            self._accepted.setdefault(batch, []).extend(m for m in manifests if m.verdict in ("accepted", "waived"))
        for manifests in self._accepted.values():
            manifests.sort(key=lambda manifest: manifest.created)
        seen = {manifest.fingerprint for manifest in used.values()}
        open_ = list(used.values())
        while open_:
            new: dict[str, Manifest] = {}
            for judged in open_:
                for name in judged.facts.get(COMPARED, ()):
                    before = [m for m in self._accepted.get(name, ()) if m.created <= judged.created]
                    if before and before[-1].fingerprint not in seen:
                        new[before[-1].fingerprint] = before[-1]
            seen |= new.keys()
            whole = self._store.manifests(self._pipeline, VALIDATED, new)
            open_ = [self._same(whole, manifest) for manifest in new.values()]
            for manifest in open_:
                raw = [m for m in self._inputs(manifest) if m.stage != VALIDATED]
                self._found.evidence += [manifest, *raw]
