"""The data gate without a stage: what `ml-platform check` looks at, what it compares that with, and the verdicts.

Nothing is materialized, published or recorded. The verdict is the one that a run would come to: the same two halves of
`gates.batch` over the same bytes, and a batch that is accepted here is among those that later ones are compared with.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import LandingError
from ml_platform.gates.batch import Looked, accepted_of, judge, look, version_of
from ml_platform.gates.rendering import CheckedFile
from ml_platform.stages.raw_batch import file_name
from ml_platform.versions.content import content_versions
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline, Source
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.histories import History

LATEST = "\U0010ffff"
"""Comes after every batch: a file that belongs to none is compared with the latest ones."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Files that are judged as one batch.

    Args:
        batch: its name, "" where nobody says.
        files: by source; None where an optional source did not land.
        shown: their paths as the reader knows them, by source.
        landed: when they landed, as far as that is known.
    """

    batch: str
    files: Mapping[str, Path | None]
    shown: Mapping[str, str]
    landed: Mapping[str, dt.datetime] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What it is called where others are compared with it."""
        return self.batch or ", ".join(self.shown.values())


def landed_candidate(chain: Chain, batch: str, scratch: Path) -> Candidate:
    """A batch as it has landed, or as it was archived where its files are gone.

    Args:
        chain: the pipeline as it stands.
        batch: its name.
        scratch: where copies of remote files go.

    Raises:
        LandingError: it has not landed, or not whole, and was never taken.
    """
    files: dict[str, Path | None] = {}
    shown: dict[str, str] = {}
    times: dict[str, dt.datetime] = {}
    archived = chain.snapshots([batch]).get(batch)
    kept = {file.name: file for file in archived.files} if archived is not None else {}
    missing: list[str] = []
    for source in chain.pipeline.sources:
        landed = chain.landing_files(source.name, source.format).get(batch)
        if landed is not None:
            files[source.name], shown[source.name] = Path(landed.url), landed.url
            times[source.name] = dt.datetime.fromtimestamp(landed.modified, dt.UTC)
            if not chain.landing.local:
                files[source.name] = scratch / short_hash([batch, source.name])
                chain.landing.snapshot(landed, scratch / short_hash([batch, source.name]))
        elif archived is not None and file_name(source) in kept:
            files[source.name] = chain.store.path(kept[file_name(source)])
            shown[source.name] = str(archived.facts.get("landed", {}).get(source.name, file_name(source)))
            if at := archived.facts.get("landed_at", {}).get(source.name):
                times[source.name] = dt.datetime.fromisoformat(at)
        elif source.required:
            missing.append(source.name)
        else:
            files[source.name] = None
    if missing:
        raise LandingError(
            "The batch has not landed." if not shown else "The batch is incomplete.",
            where=f"pipeline {chain.pipeline.name!r}, batch {batch!r}",
            got=f"nothing of {', '.join(missing)} in {chain.landing.url}, and no snapshot in the store",
            fix="`ml-platform list` shows what has landed; a file elsewhere is checked with --path",
        )
    return Candidate(batch=batch, files=files, shown=shown, landed=times)


def check_batches(
    pipeline: Pipeline, candidates: Iterable[Candidate], history: History, *, memory_mib: int
) -> Iterator[list[CheckedFile]]:
    """Judge one batch after the other, in name order as a run does, so that each is compared with those before it.

    Args:
        pipeline: whose schemas and gate.
        candidates: what is to be judged.
        history: what they are compared with.
        memory_mib: MiB that looking at one file may take.

    Returns:
        For each, one verdict a file, in the order of the pipeline's sources.
    """
    # What belongs to no batch is compared with the latest ones, those of this call among them.
    ordered = sorted(candidates, key=lambda candidate: candidate.batch or LATEST)
    seen: dict[str, str] = {}
    for candidate in ordered:
        with tempfile.TemporaryDirectory(prefix="ml-platform-check-") as scratch:
            yield _check(pipeline, candidate, history, seen, memory_mib, Path(scratch))


def _check(
    pipeline: Pipeline, candidate: Candidate, history: History, seen: dict[str, str], memory_mib: int, scratch: Path
) -> list[CheckedFile]:
    """Judge one, and remember what was accepted: `seen` has, by the version of their rows, what they are called."""
    sources: list[Source] = [source for source in pipeline.sources if source.name in candidate.files]
    looked: dict[str, Looked] = {
        source.name: look(
            candidate.files[source.name], pipeline, source, batch=candidate.batch, out=scratch, memory_mib=memory_mib
        )
        for source in sources
    }
    written = {name: [its.file] for name, its in looked.items() if its.file is not None}
    contents = {name: found.data_version for name, found in content_versions(written).items()}
    place, version = candidate.batch or LATEST, version_of(contents)
    before = history.before(place, pipeline.batch_gate.history)
    again = seen.get(version, candidate.label)
    repeated = history.same(place, version, candidate.files) if contents else ""
    if contents and again != candidate.label:
        if history.compares:
            repeated = repeated or again
        else:
            history.remarks.append(f"{candidate.label} has the very rows of {again}; nothing is compared, so it may.")
    reports = judge(
        pipeline,
        looked,
        batch=candidate.batch,
        contents=contents,
        before=before,
        repeated=repeated,
        landed=candidate.landed,
    )
    accepted = all(report.accepted for report in reports.values())
    if accepted:
        seen.setdefault(version, candidate.label)
    if candidate.batch:
        history.judged(candidate.batch, version, accepted_of(looked, contents, candidate.batch) if accepted else {})
    return [CheckedFile(path=candidate.shown[name], report=reports[name]) for name in candidate.shown]
