"""What has landed of a pipeline and was not taken yet, found without reading a file.

Nothing remembers here what was taken: that follows from what Dagster has published and from which bytes a landed file
was seen to hold (`stages.digests`). What is remembered from look to look is only what is on its way, so it stays small
however many batches there are, and losing it costs a run that finds nothing to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ml_platform.stages.raw_batch import content_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.landed import LandedFile
    from ml_platform.stages.chain import Chain


@dataclass(kw_only=True)
class Memory:
    """What is kept between two looks.

    Args:
        mark: up to this batch everything is settled: a look that lists only new names begins behind it.
        listed: when everything was last listed, in seconds since 1970.
        seen: versions of files that were not known to be complete, by "source/batch".
        since: when batches that lack a source were first seen.
        told: batches of which people were told that they wait too long.
        requested: what a run was asked to take of each batch. Kept while it is not taken: if that run fails, taking
            it again is for `reconcile` to decide.
    """

    mark: str = ""
    listed: float = 0.0
    seen: dict[str, str] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    requested: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As a sensor's cursor."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Memory:
        """Read what `to_json` wrote. A sensor without a cursor remembers nothing."""
        return cls(**json.loads(text)) if text else cls()


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """What one look found.

    Args:
        ready: what landed, by batch, of complete batches that nobody was asked to take.
        growing: batches with a file that may still be written.
        waiting: sources that a batch lacks, and waits for, by batch.
        overdue: those of `waiting` that have waited too long, and of which nobody was told.
        memory: for the next look, once people are told of what is overdue.
    """

    ready: Mapping[str, str]
    growing: tuple[str, ...]
    waiting: Mapping[str, tuple[str, ...]]
    overdue: Mapping[str, tuple[str, ...]]
    memory: Memory


def look(chain: Chain, memory: Memory, now: float) -> Arrivals:
    """Look at what has landed.

    Args:
        chain: the pipeline as it stands now, not planning.
        memory: of the look before.
        now: in seconds since 1970.

    Raises:
        LandingError: the landing place cannot be listed.
    """
    declared = chain.pipeline.automation.new_data
    assert declared is not None
    whole = chain.landing.local or not memory.mark or now - memory.listed >= declared.relist_seconds
    files = _files(chain, after="" if whole else memory.mark)
    taken = _taken(chain, files)
    ready: dict[str, str] = {}
    growing: list[str] = []
    waiting: dict[str, tuple[str, ...]] = {}
    settled: set[str] = set()
    deadline = declared.deadline_hours * 3600
    since: dict[str, float] = {}
    for batch, landed in files.items():
        missing = _missing(chain, landed)
        if missing and batch not in taken:
            since[batch] = memory.since.get(batch, now)
        late = batch in since and now - since[batch] > deadline
        if batch in since and not (late and _goes_on(chain, missing)):
            waiting[batch] = missing
        elif not all(_complete(chain, memory, batch, source, file, now) for source, file in landed.items()):
            growing.append(batch)
        elif batch in taken or memory.requested.get(batch) == _version(landed):
            settled.add(batch)
        else:
            ready[batch] = _version(landed)
    # Of what was not listed this time, nothing new is known.
    unlisted = set() if whole else {*memory.since, *memory.requested} - files.keys()
    since |= {batch: memory.since[batch] for batch in unlisted & memory.since.keys()}
    late_ones = {batch for batch in {*waiting, *unlisted} & since.keys() if now - since[batch] > deadline}
    kept = (settled - taken) | unlisted
    return Arrivals(
        ready=ready,
        growing=tuple(growing),
        waiting=waiting,
        overdue={batch: waiting[batch] for batch in sorted((late_ones & waiting.keys()) - set(memory.told))},
        memory=Memory(
            mark=_mark("" if whole else memory.mark, files, settled | late_ones),
            listed=now if whole else memory.listed,
            seen={f"{source}/{batch}": file.version for batch in growing for source, file in files[batch].items()},
            since=since,
            told=sorted(late_ones),
            requested={batch: version for batch, version in memory.requested.items() if batch in kept},
        ),
    )


def _goes_on(chain: Chain, missing: Iterable[str]) -> bool:
    """Whether a batch is taken without these sources."""
    return not any(chain.pipeline.source(name).required for name in missing)


def _missing(chain: Chain, landed: Mapping[str, LandedFile]) -> tuple[str, ...]:
    """Sources that a batch lacks. An empty file is none."""
    names = (source.name for source in chain.pipeline.sources)
    return tuple(name for name in names if name not in landed or landed[name].size == 0)


def _files(chain: Chain, after: str) -> dict[str, dict[str, LandedFile]]:
    """Landed files by batch, then source."""
    found: dict[str, dict[str, LandedFile]] = {}
    for source in chain.pipeline.sources:
        listed = chain.landing.files(chain.pipeline, source.name, source.format, after=after, tell=False)
        for batch, file in listed.items():
            found.setdefault(batch, {})[source.name] = file
    return dict(sorted(found.items()))


def _taken(chain: Chain, files: Mapping[str, Mapping[str, LandedFile]]) -> set[str]:
    """Batches whose landed files hold the bytes that are published."""
    known = chain.digests.known(file for landed in files.values() for file in landed.values())
    published = chain.published.versions("raw_batch")
    return {
        batch
        for batch, landed in files.items()
        if all(file.url in known for file in landed.values())
        and published.get(batch) == content_version({source: known[file.url] for source, file in landed.items()})
    }


def _complete(chain: Chain, memory: Memory, batch: str, source: str, file: LandedFile, now: float) -> bool:
    """Whether nobody writes the file any more, as far as can be known."""
    if chain.landing.whole or chain.pipeline.source(source).complete != "still":
        return True  # else it would not have been listed
    declared = chain.pipeline.automation.new_data
    assert declared is not None
    settle, age = chain.settings.settle_seconds, now - file.modified
    if memory.seen.get(f"{source}/{batch}") == file.version and not 0 <= age < settle:
        return True  # the same as a look ago, whatever the clocks of other machines say
    return age >= max(settle, declared.every_seconds)


def _version(landed: Mapping[str, LandedFile]) -> str:
    """Names what landed by how it is listed: another version or size is another arrival."""
    return short_hash({source: [file.version, file.size] for source, file in landed.items()})[:16]


def _mark(mark: str, listed: Iterable[str], settled: set[str]) -> str:
    """The last batch up to which all that was listed, from `mark` on, is settled."""
    for batch in sorted(listed):
        if batch not in settled:
            break
        mark = batch
    return mark
