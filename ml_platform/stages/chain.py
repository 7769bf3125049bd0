"""One pipeline as it stands: which artifact every stage of every batch should be, and whether it is there.

An artifact's expected name follows from the landing place down: a stage's fingerprint is the hash of its code version
and its inputs' data versions, and the store knows what became of a fingerprint. What is published is asked of Dagster,
whose event log is the one record of it. So nothing here can disagree with the UI, and a fresh machine with an old
store finds everything that was ever built.
"""

from __future__ import annotations

import enum
import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ml_platform.errors import RefusedError
from ml_platform.gates.waivers import Waivers
from ml_platform.gates.withdrawals import Withdrawals
from ml_platform.stages.history import AcceptedBatches
from ml_platform.stages.stage import UNPARTITIONED, Stage, Work
from ml_platform.store.gist import paused_collection
from ml_platform.store.manifest import Manifest
from ml_platform.versions.fingerprint import fingerprint

if TYPE_CHECKING:
    from ml_platform.landing import LandedFile, Landing
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.digests import Digests
    from ml_platform.stages.published import Published
    from ml_platform.store import Store

RAW_BATCH = "raw_batch"


class State(enum.StrEnum):
    """How one artifact stands."""

    FRESH = "fresh"
    """Built, and published in this Dagster instance."""
    KNOWN = "known"
    """Built before, here or elsewhere, but something else is published."""
    STALE = "stale"
    """Must be built: no artifact has its fingerprint."""
    REJECTED = "rejected"
    """A gate refused exactly this data; nothing is to be done but other data or a waiver."""
    BLOCKED = "blocked"
    """Cannot be built now: an input is missing, rejected or not yet built."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How one artifact stands and why. `work` is what building it takes; None where it is blocked."""

    state: State
    reason: str = ""
    work: Work | None = None
    manifest: Manifest | None = None


@dataclass(kw_only=True)
class Chain:
    """A pipeline's stages over a landing place, a store and what Dagster has published."""

    pipeline: Pipeline
    stages: Mapping[str, Stage]
    settings: Settings
    store: Store
    landing: Landing
    digests: Digests
    published: Published
    planning: bool = False
    """Look at known artifacts as if they were published: to say what a run would do, without doing it."""
    scope: Collection[str] | None = None
    """When planning, the stages that the run is for; None for all. The others are looked at as they are published."""
    taking: Collection[str] | None = None
    """When planning, the batches that the run is for; None for all. No others are taken."""
    _known: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    _statuses: dict[str, dict[str, Status]] = field(default_factory=dict)
    _listed: dict[str, Mapping[str, LandedFile]] = field(default_factory=dict)
    _landed: frozenset[str] | None = None

    def statuses(self, name: str, batches: Sequence[str] | None = None) -> dict[str, Status]:
        """How a stage's artifacts stand, by batch (all that exist, unless named); key "" for an unpartitioned one.

        Each is found out once, and again after something that it rests on was committed or published here.
        """
        wanted: tuple[str, ...] = (UNPARTITIONED,)
        if self.stages[name].partitioned:
            wanted = self.batches() if batches is None else tuple(batches)
        known = self._statuses.setdefault(name, {})
        if missing := [batch for batch in wanted if batch not in known]:
            with paused_collection():
                known.update(self._look(self.stages[name], missing))
        return {batch: known[batch] for batch in wanted}

    def _look(self, stage: Stage, wanted: Sequence[str]) -> dict[str, Status]:
        name = stage.name
        inputs = stage.inputs(self, wanted)
        code = stage.version.value
        prints = {b: fingerprint(code, i) for b, i in inputs.items() if not isinstance(i, str)}
        known = self.lookup(name, prints.values())
        published, rejected = self.published.versions(name), self.published.rejections(name)
        result: dict[str, Status] = {}
        for batch in wanted:
            given = inputs[batch]
            if isinstance(given, str):
                result[batch] = Status(state=State.BLOCKED, reason=given)
                continue
            manifest = known.get(prints[batch])
            work = Work(batch=batch, inputs=given, manifests={}, fingerprint=prints[batch])
            if manifest is None:
                state, reason = State.STALE, "not built for this code and these inputs"
            elif manifest.verdict == "rejected":
                state, reason = State.REJECTED, str(manifest.facts.get("reason", "rejected"))
            elif published.get(batch) != manifest.data_version:
                state, reason = State.KNOWN, "built before"
            elif batch in rejected:  # the last that Dagster has heard: its checks would stay failed
                state, reason = State.KNOWN, "another was rejected since"
            elif not stage.stands(self, manifest):
                state, reason = State.KNOWN, "what it left outside the store is gone"
            else:
                state, reason = State.FRESH, ""
            result[batch] = Status(state=state, reason=reason, work=work, manifest=manifest)
        return result

    def settled(self, name: str, batches: Sequence[str]) -> dict[str, Manifest | str]:
        """The artifacts that a later stage may read, by batch; or why it may not, and what to do.

        A partitioned stage's artifact must be built by the present code from the present inputs, accepted, and
        published: so a rejected batch is refused whoever asks, and one training set never mixes two versions of the
        feature code. `raw_batch` is the archive: what was taken stays readable whatever becomes of the landed file.
        """
        if not self.stages[name].partitioned:
            return dict.fromkeys(batches, self._settled_one(name))
        if name == RAW_BATCH:
            return self._archived(batches)
        return {batch: self._judge(name, batch, status) for batch, status in self.statuses(name, batches).items()}

    def _archived(self, batches: Sequence[str]) -> dict[str, Manifest | str]:
        """Snapshots are named by their content alone, so what Dagster has published leads straight to them.

        When planning, those that would be taken come first; one whose landed file is gone stays what it was.
        """
        planned: dict[str, Manifest | str] = {}
        if self._plans(RAW_BATCH):
            statuses = self.statuses(RAW_BATCH, batches)
            planned = {b: self._judge(RAW_BATCH, b, s) for b, s in statuses.items() if s.state is not State.BLOCKED}
            if len(planned) == len(batches):
                return planned
        taken = self.snapshots(batches)
        where = f"{self.pipeline.name}/{RAW_BATCH}"
        return {
            batch: planned.get(batch)
            or taken.get(batch)
            or f"{where} of {batch} has not been taken: materialize it first."
            for batch in batches
        }

    def snapshots(self, batches: Iterable[str]) -> dict[str, Manifest]:
        """Published snapshots of those of the batches that were taken, also where the landed file is gone."""
        code = self.stages[RAW_BATCH].version.value
        versions = self.published.versions(RAW_BATCH)
        prints = {b: fingerprint(code, {f"landing/{b}": versions[b]}) for b in batches if b in versions}
        known = self.lookup(RAW_BATCH, prints.values())
        return {batch: known[print_] for batch, print_ in prints.items() if print_ in known}

    def _settled_one(self, name: str) -> Manifest | str:
        """An unpartitioned stage's published artifact: frozen and complete, even if something newer could be built."""
        if self._plans(name):
            return self._judge(name, UNPARTITIONED, self.statuses(name)[UNPARTITIONED])
        manifest = self.published_artifact(name)
        withdrawn = self._withdrawn_from(manifest) if manifest is not None else []
        if manifest is not None and not withdrawn and self.waivers.admit(manifest):
            return manifest
        status = self.statuses(name)[UNPARTITIONED]
        if status.state is State.REJECTED:
            return self._judge(name, UNPARTITIONED, status)
        if withdrawn:
            told = self.withdrawals.holding()[withdrawn[0]].describe()
            return f"{name} was made with what is withdrawn: materialize it anew first ({told})"
        if manifest is not None:
            return f"{name} rests on a waiver that was revoked or has expired: materialize it anew first"
        return f"{name} has not been materialized: materialize it first"

    def published_artifact(self, name: str) -> Manifest | None:
        """What an unpartitioned stage has published last; None where that is nothing, or is damaged."""
        print_ = self.published.fingerprint(name)
        return self.lookup(name, [print_]).get(print_) if print_ else None

    def _judge(self, name: str, batch: str, status: Status) -> Manifest | str:
        where = f"{self.pipeline.name}/{name} of {batch}" if batch else f"{self.pipeline.name}/{name}"
        if status.state is State.FRESH or (self._plans(name) and status.state is State.KNOWN):
            assert status.manifest is not None
            return status.manifest
        if status.state is State.REJECTED:
            return f"{where} was rejected: {status.reason.rstrip('.')}. {self.stages[name].remedy(batch)}".rstrip()
        if status.state is State.BLOCKED:
            return status.reason
        return f"{where} is out of date ({status.reason}): materialize it first."

    def _plans(self, name: str) -> bool:
        return self.planning and (self.scope is None or name in self.scope)

    @functools.cached_property
    def waivers(self) -> Waivers:
        """What people have accepted though a gate rejected it. Listed once in the life of this object."""
        return Waivers(self.store, self.pipeline.name)

    @functools.cached_property
    def withdrawals(self) -> Withdrawals:
        """Which batches people have taken out of training. They are listed with the waivers."""
        return Withdrawals(self.waivers.records)

    @functools.cached_property
    def history(self) -> AcceptedBatches:
        """The accepted batches that later ones are compared with."""
        return AcceptedBatches(self)

    def _withdrawn_from(self, manifest: Manifest) -> list[str]:
        """The withdrawn batches whose features an artifact was made from."""
        return [batch for batch in self.withdrawals.holding() if f"features/{batch}" in manifest.inputs]

    def input_manifests(self, inputs: Iterable[str]) -> dict[str, Manifest]:
        """The artifacts behind input names ("stage" or "stage/batch"), which were settled before."""
        by_stage: dict[str, list[str]] = {}
        for name in inputs:
            stage, _, batch = name.partition("/")
            if stage in self.stages:
                by_stage.setdefault(stage, []).append(batch)
        result: dict[str, Manifest] = {}
        for stage, batches in by_stage.items():
            for batch, manifest in self.settled(stage, batches).items():
                if isinstance(manifest, str):
                    raise RefusedError(manifest, where=f"{self.pipeline.name}/{stage} {batch}".strip())
                result[f"{stage}/{batch}" if batch else stage] = manifest
        return result

    def of_version(self, name: str, data_version: str, **inputs: str) -> Manifest:
        """An unpartitioned stage's artifact by its content, the published one before older ones.

        Args:
            name: the stage.
            data_version: of the artifact.
            inputs: data versions of inputs that it must have been built from.

        Raises:
            RefusedError: there is none any more.
        """
        published = self.published.fingerprint(name)
        older = (manifest.fingerprint for manifest in reversed(self.store.artifacts(self.pipeline.name, name)))
        for print_ in itertools.chain([published] if published else [], older):
            manifest = self.lookup(name, [print_]).get(print_)
            if manifest is None or manifest.data_version != data_version:
                continue
            if all(manifest.inputs.get(key) == version for key, version in inputs.items()):
                return manifest
        raise RefusedError(
            "An artifact is gone that a later stage was built from.",
            where=f"{self.pipeline.name}/{name}",
            got=f"data version {data_version}",
            fix=f"ml-platform run {self.pipeline.name} --force --select {name}",
        )

    def batches(self) -> tuple[str, ...]:
        """Every batch that has landed or was ever taken, in name order."""
        return tuple(sorted({*self.published.versions(RAW_BATCH), *self.landed()}))

    def taken(self) -> tuple[str, ...]:
        """Every batch of which a snapshot is published, in name order; when planning, also what will be taken."""
        if self._plans(RAW_BATCH):
            statuses, archived = self.statuses(RAW_BATCH), self.published.versions(RAW_BATCH)
            wanted = statuses.keys() if self.taking is None else set(self.taking)
            return tuple(
                b
                for b, status in statuses.items()
                if b in archived or (status.state is not State.BLOCKED and b in wanted)
            )
        return tuple(sorted(self.published.versions(RAW_BATCH)))

    def landed(self) -> frozenset[str]:
        """Batches of which at least one source's file is in the landing place now. Listed once."""
        if self._landed is None:
            feeds = (self.landing_files(source.name, source.format) for source in self.pipeline.sources)
            self._landed = frozenset[str]().union(*feeds)
        return self._landed

    def landing_files(self, feed: str, format_: str) -> Mapping[str, LandedFile]:
        """What has landed of a feed, by batch (by name for references). Listed once in the life of this object."""
        if feed not in self._listed:
            self._listed[feed] = self.landing.files(self.pipeline, feed, format_)
        return self._listed[feed]

    def lookup(self, name: str, prints: Iterable[str]) -> dict[str, Manifest]:
        """Manifests by fingerprint. Manifests never change, so each is read once; bytes are verified when used."""
        prints = list(prints)
        missing = [p for p in prints if (name, p) not in self._known]
        if missing:
            for print_, manifest in self.store.find_many(self.pipeline.name, name, missing).items():
                self._known[(name, print_)] = manifest
        return {p: self._known[(name, p)] for p in prints if (name, p) in self._known}

    def committed(self, manifest: Manifest) -> None:
        """Take note of an artifact that this process committed."""
        self._known[(manifest.stage, manifest.fingerprint)] = manifest
        self._forget(manifest.stage, manifest.batch)

    def publish(self, manifest: Manifest) -> None:
        """Take note of an artifact that this process published."""
        self.published.record(manifest.stage, manifest.batch, manifest.data_version)
        if manifest.stage == "validated_batch" and "history" in vars(self):
            self.history.published(manifest)
        self._forget(manifest.stage, manifest.batch)

    def refresh(self, name: str, batches: Iterable[str]) -> None:
        """Look again at artifacts that another run may have built or published meanwhile."""
        self.published.forget(name)
        for batch in batches:
            self._forget(name, batch)

    def _forget(self, name: str, batch: str) -> None:
        """An artifact stands differently now, and with it all that later stages made of it."""
        names = list(self.stages)
        self._statuses.get(name, {}).pop(batch, None)
        for later in names[names.index(name) + 1 :]:
            self._statuses.pop(later, None)
