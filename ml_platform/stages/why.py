"""Why an artifact must be built: what differs from the one that it replaces, down to the file, function or landed file.

The one that it replaces is what Dagster published last, or the last rejection; where this Dagster has published nothing
of the stage, as on a fresh machine, the newest in the store. Only what is stale is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ml_platform.errors import DamagedArtifactError
from ml_platform.stages.chain import RAW_BATCH, Chain, State, Status
from ml_platform.stages.execute import CODE_FILE
from ml_platform.stages.published import CODE_VERSION_TAG, FINGERPRINT_TAG
from ml_platform.stages.raw_batch import file_name
from ml_platform.stages.reference import FOLDER, ReferenceTable
from ml_platform.stages.stage import UNPARTITIONED, Stage
from ml_platform.store.manifest import Manifest
from ml_platform.versions.cause import Cause, Kind
from ml_platform.versions.code import CodeVersion
from ml_platform.versions.fingerprint import fingerprint
from ml_platform.words import few

NEVER_BUILT = "never built"
DAMAGED = "its artifact is damaged or was removed"
SHOWN = 3
"""Batches that a cause names."""
_SEARCHED = 1000
"""Artifacts of a stage among which an earlier one is searched by its data version, to find what is behind new data."""


@dataclass
class _Data:
    """Inputs of one stage that changed in one way."""

    artifacts: set[str] = field(default_factory=set)
    items: dict[str, Manifest] = field(default_factory=dict)
    """By the input's batch, the artifact that the earlier input was read for."""


class History:
    """What became of a pipeline's artifacts before, read as far as somebody asks."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._newest: dict[str, list[Manifest]] = {}
        self._told: dict[str, set[str]] = {}

    def told(self, name: str) -> set[str]:
        """The batches of which a stage's artifact was ever published, or rejected."""
        if name not in self._told:
            published = self.chain.published
            self._told[name] = {*published.versions(name), *published.rejections(name)}
        return self._told[name]

    def replaced(self, name: str, batches: Iterable[str]) -> dict[str, Manifest]:
        """The artifact that a new one would replace, by batch; nothing where there was none."""
        told = self.told(name)
        if not told:
            newest = {manifest.batch: manifest for manifest in self.artifacts(name)}
            return {batch: newest[batch] for batch in batches if batch in newest}
        tags = self.chain.published.tags(name, [batch for batch in batches if batch in told])
        prints = {batch: its[FINGERPRINT_TAG] for batch, its in tags.items() if FINGERPRINT_TAG in its}
        known = self.chain.lookup(name, prints.values())
        return {batch: known[print_] for batch, print_ in prints.items() if print_ in known}

    def sample(self, name: str, count: int) -> list[Manifest]:
        """Some of a stage's artifacts, from all over its batches."""
        batches = sorted(self.told(name))
        if not batches:
            return self.artifacts(name)[-count:]
        return list(self.replaced(name, batches[:: max(1, len(batches) // count)][:count]).values())

    def artifacts(self, name: str) -> list[Manifest]:
        """Every artifact of a stage, oldest first. Reads them all."""
        if name not in self._newest:
            self._newest[name] = self.chain.store.artifacts(self.chain.pipeline.name, name)
        return self._newest[name]

    def of_data(self, name: str, batch: str, data_version: str) -> Manifest | None:
        """An artifact by its content, where finding it is cheap."""
        if name == RAW_BATCH:  # named by its content alone
            print_ = fingerprint(self.chain.stages[name].version.value, {f"landing/{batch}": data_version})
            return self.chain.lookup(name, [print_]).get(print_)
        if batch and len(self.chain.batches()) > _SEARCHED:
            return None
        same = [m for m in self.artifacts(name) if m.batch == batch and m.data_version == data_version]
        return same[-1] if same else None


class Why:
    """Says why artifacts of a chain are stale."""

    def __init__(self, chain: Chain, history: History) -> None:
        self.chain, self.history = chain, history
        self._codes: dict[tuple[str, str], list[Cause]] = {}

    def causes(self, stage: Stage, statuses: Mapping[str, Status], before: Mapping[str, Manifest]) -> list[Cause]:
        """Why a stage's artifacts must be built.

        Args:
            stage: whose.
            statuses: of those that must be, by batch.
            before: what they replace, by batch.
        """
        counts: dict[Cause, int] = {}
        changed: dict[tuple[str, str], _Data] = {}
        for batch, status in statuses.items():
            assert status.work is not None
            found: list[Cause] = []
            earlier = before.get(batch)
            if earlier is None:
                text = DAMAGED if batch in self.history.told(stage.name) else NEVER_BUILT
                found = [Cause(kind="artifact", text=text, name=stage.name)]
            else:
                found = self.code(stage, earlier)
                now, then = status.work.inputs, earlier.inputs
                for name in now.keys() | then.keys():
                    if now.get(name) != then.get(name):
                        how = "new" if name not in then else "gone" if name not in now else "changed"
                        upstream, _, item = name.partition("/")
                        data = changed.setdefault((upstream, how), _Data())
                        data.artifacts.add(batch)
                        data.items[item] = earlier
                if not found and now == then:
                    found = [Cause(kind="artifact", text=DAMAGED, name=stage.name)]
            for cause in found:
                counts[cause] = counts.get(cause, 0) + 1
        data_causes = self._data(stage, changed)
        return [*(replace(cause, count=count) for cause, count in counts.items()), *data_causes]

    def code_alone(self, stage: Stage, batches: Sequence[str]) -> list[Cause]:
        """What is known to have changed in the code of artifacts whose inputs are not known yet."""
        by_version: dict[str, list[str]] = {}
        for batch, tags in self.chain.published.tags(stage.name, batches).items():
            if (version := tags.get(CODE_VERSION_TAG)) not in (None, stage.version.value):
                by_version.setdefault(version, []).append(batch)
        causes: list[Cause] = []
        for of_version in by_version.values():
            earlier = self.history.replaced(stage.name, of_version[:1])
            found = [cause for manifest in earlier.values() for cause in self.code(stage, manifest)]
            causes += [replace(cause, count=len(of_version)) for cause in found]
        return causes

    def code(self, stage: Stage, before: Manifest) -> list[Cause]:
        """What has changed in a stage's code since an artifact was built."""
        if before.code_version == stage.version.value:
            return []
        key = (stage.name, before.code_version)
        if key not in self._codes:
            self._codes[key] = self._changed(stage, before)
        return self._codes[key]

    def _changed(self, stage: Stage, before: Manifest) -> list[Cause]:
        try:
            record = json.loads(self.chain.store.read_bytes(before.file(CODE_FILE)))
        except DamagedArtifactError:
            return [Cause(kind="code", text="the code changed, and the record of what it was is damaged")]
        return stage.version.diff(CodeVersion.from_dict(record))

    # Inputs

    def _data(self, stage: Stage, changed: dict[tuple[str, str], _Data]) -> list[Cause]:
        found = self._left_out(changed) if any(upstream == "left out" for upstream, _ in changed) else []
        for (upstream, how), data in sorted(changed.items()):
            items = sorted(data.items)
            kind: Kind = "waiver" if upstream in ("waiver", "waived") else "data"
            if upstream == "landing":
                text = self._landed(stage, data.items)
            elif upstream == "waiver":
                text = self._waiver(stage, how, sorted(data.artifacts))
            elif upstream == "history":
                names = few(sorted(data.artifacts))
                more = "are enough" if how == "gone" else "are no longer enough"
                text = f"there {more} batches before {names} to compare with"
            elif upstream == "waived":
                text = "what is waived changed"
            elif upstream == "warm start":  # beside the champion, or alone when the share to replay changed
                if any(other == "champion" for other, _ in changed):
                    continue
                text = "another share of what the champion knows is seen again"
            elif upstream == "champion" and stage.partitioned:
                text = "there is another champion"
            elif upstream == "champion":
                how_now = {"gone": "begins anew", "new": "goes on from a champion"}
                text = f"training {how_now.get(how, 'goes on from another champion')}"
            elif upstream == "threshold":
                text = "the champion has another threshold"
            elif upstream == "registry":
                text = "another model registry is set"
            else:
                text = self._upstream(stage, upstream, how, items)
                if how == "changed" and (behind := self._behind(upstream, data)):
                    text += f" ({'; '.join(behind)})"
            batches = tuple(item for item in items if item)
            found.append(Cause(kind=kind, text=text, name=upstream, batches=batches, count=len(data.artifacts)))
        return found

    def _upstream(self, stage: Stage, upstream: str, how: str, items: Sequence[str]) -> str:
        one = len(items) == 1
        what = f"{'has' if one else 'have'} new data" if how == "changed" else f"{'is' if one else 'are'} {how}"
        if items == [UNPARTITIONED]:
            return f"{upstream} {what}"
        if how == "changed" or stage.partitioned:
            return f"{upstream} of {few(items)} {what}"
        return f"{'batch' if one else 'batches'} {few(items)} {what}"

    def _left_out(self, changed: dict[tuple[str, str], _Data]) -> list[Cause]:
        """The training set's batches that a gate or a person let in or out since; takes them out of `changed`."""
        for how in ("new", "gone", "changed"):
            if (data := changed.pop(("left out", how), None)) is not None:
                break
        assert data is not None
        (earlier,) = data.items.values()
        validated = self.chain.statuses("validated_batch", self.chain.taken())
        rejected = {batch for batch, status in validated.items() if status.state is State.REJECTED}
        held: Mapping[str, str] = earlier.facts.get("withdrawn", {})
        withdrawn = {b: w.id for b, w in self.chain.withdrawals.holding().items() if b in validated}
        before, out = set(earlier.facts.get("left_out", ())), rejected | withdrawn.keys()
        waived = {b for b, s in validated.items() if s.manifest is not None and s.manifest.verdict == "waived"}
        let_in = before - out
        accepted = let_in - held.keys()
        said = {
            "now withdrawn": withdrawn.keys() - held.keys(),
            "withdrawn anew": {b for b in withdrawn.keys() & held.keys() if withdrawn[b] != held[b]},
            "no longer withdrawn": (held.keys() - withdrawn.keys()) & validated.keys(),
            "now rejected": rejected - before,
            "now waived": accepted & waived,
            "now accepted": (accepted - waived) & validated.keys(),
            "gone": let_in - validated.keys(),
        }
        for (upstream, how), others in list(changed.items()):
            if upstream == "features" and how != "changed":
                for batch in (out - before) | let_in:
                    others.items.pop(batch, None)
                if not others.items:
                    del changed[(upstream, how)]
        return [
            Cause(
                kind="data",
                name="validated_batch",
                text=f"batch {names[0]} is {what}" if len(names) == 1 else f"batches {few(names)} are {what}",
                batches=tuple(names),
            )
            for what, batches in said.items()
            if (names := sorted(batches))
        ]

    def _waiver(self, stage: Stage, how: str, batches: Sequence[str]) -> str:
        names = few(batches) if stage.partitioned else stage.name
        if how == "gone":
            return f"the waiver of {names} was revoked or has expired"
        return f"{names} {'was' if len(batches) == 1 else 'were'} waived{'' if how == 'new' else ' anew'}"

    def _behind(self, upstream: str, data: _Data) -> list[str]:
        """What is behind new data of an input that is built already, said of the batches that are named."""
        found: list[str] = []
        for item in sorted(data.items)[:SHOWN]:
            name = f"{upstream}/{item}" if item else upstream
            found += self._roots(upstream, item, data.items[item].inputs[name])
        return list(dict.fromkeys(found))[:SHOWN]

    def _roots(self, name: str, batch: str, then: str) -> list[str]:
        """Why an artifact that is built differs from an earlier one with the data version `then`."""
        if name not in self.chain.stages:
            return []
        stage = self.chain.stages[name]
        now = self.chain.statuses(name, [batch])[batch].manifest
        before = self.history.of_data(name, batch, then)
        if now is None or before is None:
            return []
        if name == RAW_BATCH:
            return [_again(_differing(now, before))]
        found = [str(cause) for cause in self.code(stage, before)]
        for each in sorted(now.inputs.keys() & before.inputs.keys()):
            if now.inputs[each] != before.inputs[each]:
                upstream, _, item = each.partition("/")
                found += self._roots(upstream, item, before.inputs[each])
        return found

    # Landed files

    def _landed(self, stage: Stage, items: Mapping[str, Manifest]) -> str:
        names: list[str] = []
        for batch in sorted(items)[:SHOWN]:
            names += self._changed_files(stage, batch, items[batch])
        more = len(items) - SHOWN
        return _again([*names, *([f"files of {more} more batches"] if more > 0 else [])])

    def _changed_files(self, stage: Stage, batch: str, before: Manifest) -> list[str]:
        """The landed files whose bytes are others than those of an artifact, such as "flights/2013-02-03.parquet"."""
        if isinstance(stage, ReferenceTable):
            name = file_name(stage.reference)
            places = {f"landed/{name}": (FOLDER, stage.reference.format, stage.name)}
        else:
            places = {file_name(s): (s.name, s.format, batch) for s in self.chain.pipeline.sources}
        taken = {file.name: file.sha256 for file in before.files}
        shown = {name: f"{feed}/{batch}.{format_}" for name, (feed, format_, batch) in places.items()}
        landed = {
            name: self.chain.landing_files(feed, format_).get(batch) for name, (feed, format_, batch) in places.items()
        }
        digests = self.chain.digests.of([file for file in landed.values() if file is not None])
        now = {name: None if file is None else digests[file.url] for name, file in landed.items()}
        changed = [name for name in places if now[name] != taken.get(name)]
        return [shown[name] for name in changed or places]


def _differing(now: Manifest, before: Manifest) -> list[str]:
    """The landed files in which two snapshots of a batch differ."""
    taken = {file.name: file.sha256 for file in before.files}
    names = [file.name for file in now.files if file.name != CODE_FILE and taken.get(file.name) != file.sha256]
    return [f"{feed}/{now.batch}.{suffix}" for feed, _, suffix in (name.partition(".") for name in names)]


def _again(files: Sequence[str]) -> str:
    return f"{', '.join(files)} landed again with other content"
