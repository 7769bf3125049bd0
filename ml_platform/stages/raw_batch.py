"""raw_batch: a snapshot of the bytes that landed. The archive from which everything else can be rebuilt."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import LandingError
from ml_platform.failures import classify
from ml_platform.landed import SUFFIXES
from ml_platform.stages.stage import Bench, Outcome, Stage, Work
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.landing import LandedFile
    from ml_platform.pipeline import Reference, Source
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest


class RawBatch(Stage):
    """One artifact a batch: every source's file, byte for byte."""

    name = "raw_batch"
    partitioned = True
    kinds = ("file",)
    chunk = 100

    @property
    def description(self) -> str:
        sources = ", ".join(source.name for source in self.pipeline.sources)
        return f"One partition a batch: the files that landed ({sources}), byte for byte, before any look inside."

    @property
    def upstream(self) -> tuple[str, ...]:
        return ()

    def code(self) -> CodeVersion:
        return code_version((), params={"layout": 1, "sources": [s.name for s in self.pipeline.sources]}, libraries=())

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """A batch is complete when every required source has landed. Its input is the content of its files.

        A batch that was taken stays what it was when files of it are no longer there: the archive has them.
        """
        files = self.landed(chain)
        names = [source.name for source in self.pipeline.sources]
        required = {source.name for source in self.pipeline.sources if source.required}
        there = {batch: [name for name in names if batch in files[name]] for batch in batches}
        taken = chain.snapshots([batch for batch in batches if len(there[batch]) < len(names)])
        complete = [batch for batch in batches if required.issubset(there[batch])]
        digests = chain.digests.of(files[name][batch] for batch in complete for name in there[batch])
        found: dict[str, Mapping[str, str] | str] = {}
        for batch in complete:
            by_source = {name: digests[files[name][batch].url] for name in there[batch]}
            bad = [str(digest) for digest in by_source.values() if isinstance(digest, LandingError)]
            if batch in taken and self._holds(taken[batch], by_source):
                found[batch] = dict(taken[batch].inputs)
            else:
                found[batch] = bad[0] if bad else {f"landing/{batch}": content_version(by_source)}
        for batch in batches:
            if batch in taken and batch not in found:
                found[batch] = dict(taken[batch].inputs)
            elif batch not in found:
                missing = [name for name in names if name in required and name not in there[batch]]
                found[batch] = _incomplete(chain, batch, missing, self.pipeline.sources)
        return {batch: found[batch] for batch in batches}

    def _holds(self, taken: Manifest, landed: Mapping[str, object]) -> bool:
        """Whether an archived snapshot has all that is landed now, and perhaps more."""
        archived = {file.name: file.sha256 for file in taken.files}
        there = {file_name(source): landed[source.name] for source in self.pipeline.sources if source.name in landed}
        return all(archived.get(name) == digest for name, digest in there.items())

    def landed(self, chain: Chain) -> dict[str, Mapping[str, LandedFile]]:
        """Landed files by source, then batch."""
        return {source.name: chain.landing_files(source.name, source.format) for source in self.pipeline.sources}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        files = self.landed(bench.chain)
        taken = bench.chain.snapshots([work.batch for work in works])
        for work in works:
            there = [source for source in self.pipeline.sources if work.batch in files[source.name]]
            kept = taken.get(work.batch)
            if kept is not None and kept.inputs == work.inputs and len(there) < len(self.pipeline.sources):
                yield self._again(bench, kept)  # it was asked for by force
                continue
            yield snapshot(bench, work, {source.name: files[source.name][work.batch] for source in there}, there)

    def _again(self, bench: Bench, taken: Manifest) -> Outcome:
        """A snapshot whose landed files are gone, from its own bytes."""
        names = {file_name(source) for source in self.pipeline.sources}
        files: dict[str, Path] = {}
        for file in taken.files:
            if file.name in names:
                files[file.name] = bench.scratch / short_hash([taken.batch, file.name])
                files[file.name].write_bytes(bench.store.read_bytes(file))
        return Outcome(batch=taken.batch, data_version=taken.data_version, files=files, facts=taken.facts)

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        names = {file_name(source) for source in self.pipeline.sources}
        landed = (file for file in manifest.files if file.name in names)
        return {"files": {file.name: f"{file.size} bytes, SHA-256 {file.sha256[:12]}" for file in landed}}


def snapshot(
    bench: Bench, work: Work, landed: Mapping[str, LandedFile], feeds: Sequence[Source | Reference]
) -> Outcome:
    """Copy one batch's files. What changed since it was listed is left for the next run to take."""
    files: dict[str, Path] = {}
    digests: dict[str, str] = {}
    for feed in feeds:
        target = bench.scratch / short_hash([work.batch, feed.name])
        try:
            digests[feed.name] = bench.landing.snapshot(landed[feed.name], target)
        except LandingError as error:
            return Outcome(batch=work.batch, error=str(error), passing=classify(error) == "passing")
        files[file_name(feed)] = target
    version = content_version(digests)
    if version not in work.inputs.values():
        changed = "A file changed since it was listed: run again to take what is there."
        return Outcome(batch=work.batch, error=changed, passing=True)
    facts = {
        "landed": {name: file.url for name, file in landed.items()},
        "landed_at": {name: _when(file.modified) for name, file in landed.items() if file.modified},
    }
    return Outcome(batch=work.batch, data_version=version, files=files, facts=facts)


def _when(seconds: float) -> str:
    """A time that is given in seconds since 1970, in ISO 8601."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def content_version(digests: Mapping[str, object]) -> str:
    """The data version of landed files, from the SHA-256 of each feed's."""
    return short_hash(dict(digests))


def file_name(feed: Source | Reference) -> str:
    """The name of a feed's file inside an artifact of landed bytes."""
    return f"{feed.name}.{feed.format}"


def _incomplete(chain: Chain, batch: str, missing: Sequence[str], sources: Sequence[Source]) -> str:
    lacking = [source for source in sources if source.name in missing]
    names = ", ".join(f"{s.name}/{batch}.{s.format}{_and_beside(s)}" for s in lacking)
    where = f"{chain.settings.landing}/{chain.pipeline.name}"
    return f"batch {batch} is incomplete: {', '.join(missing)} has not landed. Put {names} into {where}."


def _and_beside(source: Source) -> str:
    """What must stand beside a source's file, in words."""
    return f" and, no older, the same name with {SUFFIXES[source.complete]}" if source.complete in SUFFIXES else ""
