"""What `ml-platform check` compares a batch with: the accepted batches of the store, files in a folder, or nothing."""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ml_platform.errors import LandingError, SetupError, StoreError
from ml_platform.stages.history import STAGE
from ml_platform.stages.published import FINGERPRINT_TAG

if TYPE_CHECKING:
    from ml_platform.gates.history import Accepted
    from ml_platform.pipeline import Pipeline
    from ml_platform.stages.chain import Chain


class History(Protocol):
    """Accepted batches to compare with."""

    compares: bool
    """Whether a batch may be rejected for what it is beside the others."""
    remarks: list[str]
    """What the reader should know beside the verdicts, a sentence each."""

    def before(self, batch: str, count: int) -> Sequence[tuple[str, Mapping[str, Accepted]]]:
        """The last `count` before this one in name order, oldest first, each by source."""

    def same(self, batch: str, version: str, files: Mapping[str, Path | None]) -> str:
        """Another one with the very same rows of all sources; "" where there is none.

        Args:
            batch: its name.
            version: of its rows.
            files: as they are, by source.
        """

    def judged(self, batch: str, version: str, accepted: Mapping[str, Accepted]) -> None:
        """Take note of a batch that was judged here; `accepted` is empty where it is rejected."""


class NoHistory:
    """Nothing is compared."""

    compares = False

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def before(self, batch: str, count: int) -> Sequence[tuple[str, Mapping[str, Accepted]]]:
        """See `History`."""
        return ()

    def same(self, batch: str, version: str, files: Mapping[str, Path | None]) -> str:
        """See `History`."""
        return ""

    def judged(self, batch: str, version: str, accepted: Mapping[str, Accepted]) -> None:
        """See `History`."""


class StoreHistory:
    """The accepted batches of a store, as a run would compare with them.

    Which they are, Dagster's event log says. Where this one says of none, as on a fresh machine that shares the store,
    they are those that the store itself has: a run would publish them again before it looked at anything new.

    Args:
        chain: the pipeline as it stands.

    Raises:
        StoreError: the settings name a store in which nothing is, or it has none of what Dagster has published.
        SetupError: the settings name a Dagster home that is not there.
    """

    compares = True

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self.remarks: list[str] = []
        settings, published = chain.settings, chain.published.versions(STAGE)
        # A store or an index inside the home need not be there yet: then nothing was ever accepted.
        if Path(settings.store) != settings.home / "store" and not chain.store.is_there():
            raise StoreError(
                "The store that is named is not there, or nothing is in it: what to compare with is not known.",
                where=settings.store,
                fix="check that it is mounted and spelt so; where nothing was ever run, --against none",
            )
        if settings.dagster_home != settings.home / "dagster" and not settings.dagster_home.is_dir():
            raise SetupError(
                "The Dagster home that is named is not there: what was accepted is not known.",
                where=settings.dagster_home,
                fix="check that it is mounted and spelt so; where nothing was ever run, --against none",
            )
        if published:
            self._must_hold(sorted(published)[-chain.pipeline.batch_gate.history :])
        else:
            last = {manifest.batch: manifest for manifest in chain.store.artifacts(chain.pipeline.name, STAGE)}
            for manifest in last.values():
                if manifest.verdict != "rejected":
                    chain.history.published(manifest)

    def _must_hold(self, batches: Sequence[str]) -> None:
        """A folder that is not mounted looks like a store in which nothing is."""
        tags = self._chain.published.tags(STAGE, batches)
        prints = [its[FINGERPRINT_TAG] for its in tags.values() if FINGERPRINT_TAG in its]
        if prints and not self._chain.lookup(STAGE, prints):
            raise StoreError(
                "The store has none of the batches that were accepted last.",
                where=self._chain.settings.store,
                got=f"{len(prints)} of them in {self._chain.settings.dagster_home}, up to {batches[-1]}",
                fix="check that the store is mounted and is the one of this home; or --against none",
            )

    def before(self, batch: str, count: int) -> Sequence[tuple[str, Mapping[str, Accepted]]]:
        """See `History`.

        Raises:
            StoreError: another version of the platform has accepted those before it: a run would not judge it either.
        """
        chain = self._chain
        found, least = chain.history.before(batch, count), chain.pipeline.batch_gate.least
        enough = sum(name < batch for name in chain.published.versions(STAGE)) >= least
        if len(found) < least and enough and (unread := chain.history.unread(batch)):
            raise StoreError(
                f"It can be compared with {len(found)} accepted batches only: {unread} and others were accepted by "
                "another version of the platform.",
                where=f"pipeline {chain.pipeline.name!r}, batch {batch!r}",
                fix=f"validate those first: `ml-platform run {chain.pipeline.name}`",
            )
        return found

    def same(self, batch: str, version: str, files: Mapping[str, Path | None]) -> str:
        """See `History`."""
        return self._chain.history.same(batch, version)

    def judged(self, batch: str, version: str, accepted: Mapping[str, Accepted]) -> None:
        """See `History`."""
        if accepted:
            self._chain.history.judged(batch, version, accepted)


class FolderHistory:
    """Earlier files in a folder, profiled as they are needed: `<batch>.<format>`, or `<source>/<batch>.<format>`.

    All of them are taken as accepted but those that their schema rejects, and those that are judged here and rejected.
    What is accepted here joins them.

    Args:
        folder: where they are.
        pipeline: whose.
        sources: names of those that are compared; files without a folder of their own are taken for the only one.
        memory_mib: MiB that looking at one may take.

    Raises:
        LandingError: the folder holds no batch of any of the sources.
    """

    compares = True

    def __init__(self, folder: Path, pipeline: Pipeline, sources: Iterable[str], memory_mib: int) -> None:
        self._sources = {source.name: source for source in pipeline.sources if source.name in set(sources)}
        self._pipeline, self._memory = pipeline, memory_mib
        self._read: dict[tuple[str, str], Accepted | None] = {}
        self._files: dict[str, dict[str, Path]] = {}
        self._judged: dict[str, tuple[str, Mapping[str, Accepted]]] = {}
        self.remarks: list[str] = []
        for name, source in self._sources.items():
            places = [folder / name, *([folder] if len(self._sources) == 1 else [])]
            for path in (path for place in places for path in sorted(place.glob(f"*.{source.format}"))):
                if pipeline.batches.accepts(path.stem):
                    self._files.setdefault(path.stem, {}).setdefault(name, path)
        if not self._files:
            first = next(iter(self._sources.values()))
            raise LandingError(
                "The folder holds nothing to compare with.",
                where=f"--against {folder}",
                got=f"{sum(1 for _ in folder.iterdir())} entries" if folder.is_dir() else "no such folder",
                fix=f"earlier files, such as {folder / first.name}/<batch>.{first.format}, a batch being "
                f"{pipeline.batches.describe()}; or --against none",
            )

    def before(self, batch: str, count: int) -> Sequence[tuple[str, Mapping[str, Accepted]]]:
        """See `History`. A file that its schema rejects is passed over."""
        found: list[tuple[str, Mapping[str, Accepted]]] = []
        for name in sorted((name for name in self._files.keys() | self._judged.keys() if name < batch), reverse=True):
            if accepted := self._by_source(name):
                found.append((name, accepted))
            if len(found) == count:
                break
        return found[::-1]

    def same(self, batch: str, version: str, files: Mapping[str, Path | None]) -> str:
        """See `History`. Of those that were not profiled, only a copy of the files byte for byte is seen."""
        from ml_platform.gates.batch import version_of

        for name in sorted((self._files.keys() | self._judged.keys()) - {batch}):
            if name in self._judged:
                theirs, accepted = self._judged[name]
                found = bool(accepted) and theirs == version
            elif all((source, name) in self._read for source in self._files[name]):
                accepted = self._by_source(name)
                found = bool(accepted) and version_of({s: each.content for s, each in accepted.items()}) == version
            else:
                found = _copied(files, self._files[name])
            if found:
                return name
        return ""

    def judged(self, batch: str, version: str, accepted: Mapping[str, Accepted]) -> None:
        """See `History`."""
        self._judged[batch] = (version, accepted)

    def _by_source(self, batch: str) -> Mapping[str, Accepted]:
        """A batch as it was judged here or as its files are; empty where it counts for nothing."""
        if batch in self._judged:
            return self._judged[batch][1]
        found = {source: self._accepted(source, batch) for source in self._files[batch]}
        return {source: each for source, each in found.items() if each is not None} if all(found.values()) else {}

    def _accepted(self, source: str, batch: str) -> Accepted | None:
        if (source, batch) not in self._read:
            from ml_platform.gates.batch import look
            from ml_platform.gates.history import Accepted
            from ml_platform.versions.content import content_versions

            path = self._files[batch][source]
            with tempfile.TemporaryDirectory(prefix="ml-platform-check-") as scratch:
                whose, out = self._sources[source], Path(scratch)
                looked = look(path, self._pipeline, whose, batch=batch, out=out, memory_mib=self._memory)
                if looked.file is None or looked.profile is None:
                    self.remarks.append(f"Not compared with {path}: its schema rejects it.")
                    self._read[source, batch] = None
                else:
                    content = content_versions({source: [looked.file]})[source].data_version
                    self._read[source, batch] = Accepted(batch=batch, content=content, profile=looked.profile)
        return self._read[source, batch]


def _copied(files: Mapping[str, Path | None], of: Mapping[str, Path]) -> bool:
    """Whether files are other files byte for byte; a file is no copy of itself."""
    pairs = [(path, of.get(source)) for source, path in files.items() if path is not None]
    return bool(pairs) and all(
        theirs is not None and not theirs.samefile(path) and filecmp.cmp(path, theirs, shallow=False)
        for path, theirs in pairs
    )
