"""Carry out one stage for many batches: look up, build what no artifact has, commit, publish.

Whoever starts it (the UI, a sensor, the command line, CI), a body runs only for a fingerprint that the store does not
know. One batch that fails does not stop the others.
"""

from __future__ import annotations

import enum
import errno
import json
import time
import traceback
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from ml_platform.errors import PlatformError, StoreError
from ml_platform.failures import classify
from ml_platform.provenance.origin import BUILT_FROM, origin
from ml_platform.stages.chain import State, Status
from ml_platform.stages.stage import Bench, Outcome, Stage, Work
from ml_platform.store.manifest import Manifest
from ml_platform.versions.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable


CODE_FILE = "code.json"
"""In every artifact: what its code version was made of. Equal ones are one file in the store."""
AWAITED_EVERY = 0.5
"""Seconds between two looks at what another run builds."""
COMMITTED_TOGETHER = 25
"""Artifacts of one chunk that share their flushes to disk. A stage whose bodies take long has chunks of one."""


class Did(enum.StrEnum):
    """What became of one artifact."""

    BUILT = "built"
    CACHED = "cached"
    FRESH = "fresh"
    REJECTED = "rejected"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One artifact after its stage: `reason` says why it was rejected, failed or blocked, and `passing` whether a
    failure may go away by itself."""

    batch: str
    did: Did
    manifest: Manifest | None = None
    reason: str = ""
    passing: bool = False


def execute(
    stage: Stage,
    bench: Bench,
    batches: Sequence[str] | None = None,
    *,
    force: bool = False,
    tell: Callable[[int, str], None] = lambda left, message: None,
) -> Iterator[Result]:
    """Carry out a stage. Yields one `Result` an artifact, each as soon as it is committed; the caller publishes it.

    What another run builds at this moment is waited for and taken from it. Should that run fail or die, it is built
    here.

    Args:
        stage: which.
        bench: what bodies use.
        batches: which batches; all, when None.
        force: run bodies even where their result is known.
        tell: told how many artifacts are left to build, and a few words, whenever that changes other than by results.
    """
    statuses = bench.chain.statuses(stage.name, batches)
    stale = {b: s.work for b, s in statuses.items() if s.work is not None and (force or s.state is State.STALE)}
    tell(len(stale), "")
    _rely_on(bench, [s.manifest for b, s in statuses.items() if b not in stale and s.state is State.KNOWN])
    for batch, status in statuses.items():
        if batch not in stale:
            yield _settled(stage, bench, batch, status)
    claims, pipeline = bench.store.claims, bench.pipeline.name
    while stale:
        others: dict[str, Work] = {}
        for chunk in _chunks(list(stale.values()), stage.chunk):
            with claims.holding(pipeline, stage.name, [work.fingerprint for work in chunk]) as mine:
                others |= {work.batch: work for work in chunk if work.fingerprint not in mine}
                works = [work for work in chunk if work.fingerprint in mine]
                # Between the look and the claim another run may have finished it.
                known = bench.chain.lookup(stage.name, mine) if not force else {}
                yield from _take(stage, bench, [work.batch for work in works if work.fingerprint in known])
                if new := [work for work in works if work.fingerprint not in known]:
                    yield from _build(stage, bench, new, force=force)
        stale = yield from _await(stage, bench, others, tell)


def _rely_on(bench: Bench, known: Sequence[Manifest | None]) -> None:
    """Say that artifacts from history are used again: garbage is what nobody has used for long."""
    if gone := bench.store.renew([manifest for manifest in known if manifest is not None]):
        raise StoreError(
            "An artifact was removed as garbage at the moment at which it was to be used again.",
            where=f"{gone[0].pipeline}/{gone[0].stage} {gone[0].batch}".rstrip(),
            fix="run again: it will be built",
            passing=True,
        )


def _chunks(works: Sequence[Work], size: int) -> Iterator[Sequence[Work]]:
    return (works[start : start + size] for start in range(0, len(works), size))


def _await(
    stage: Stage, bench: Bench, others: Mapping[str, Work], tell: Callable[[int, str], None]
) -> Generator[Result, None, dict[str, Work]]:
    """Take what other runs build, as they finish it. Returns what they gave up, as soon as there is any."""
    left = dict(others)
    while left:
        # First who holds them, then what is there: the other way round, one committed in between would be missed.
        held = bench.store.claims.held(bench.pipeline.name, stage.name, [work.fingerprint for work in left.values()])
        known = bench.chain.lookup(stage.name, [work.fingerprint for work in left.values()])
        done = [batch for batch, work in left.items() if work.fingerprint in known]
        left = {batch: work for batch, work in left.items() if batch not in done}
        yield from _take(stage, bench, done)
        if given_up := {batch: work for batch, work in left.items() if work.fingerprint not in held}:
            return given_up | left
        if left:
            owners = sorted({str(held[work.fingerprint]) for work in left.values()})
            tell(len(left), f"another run builds them: {', '.join(owners)}")
            time.sleep(AWAITED_EVERY)
    return {}


def _take(stage: Stage, bench: Bench, batches: Sequence[str]) -> Iterator[Result]:
    """Settle artifacts that another run has committed since we looked."""
    bench.chain.refresh(stage.name, batches)
    for batch, status in bench.chain.statuses(stage.name, batches).items() if batches else ():
        yield _settled(stage, bench, batch, status)


def _settled(stage: Stage, bench: Bench, batch: str, status: Status) -> Result:
    """What becomes of an artifact without building it."""
    if status.state is State.KNOWN:
        assert status.work is not None
        assert status.manifest is not None
        try:
            stage.restore(bench, status.work, status.manifest)
        except Exception as error:
            bench.log.error(explain(error))
            return _failed(batch, short(error), error)
    did = {
        State.FRESH: Did.FRESH,
        State.KNOWN: Did.CACHED,
        State.REJECTED: Did.REJECTED,
        State.BLOCKED: Did.BLOCKED,
        State.STALE: Did.BLOCKED,  # it vanished between two looks
    }[status.state]
    return Result(batch=batch, did=did, manifest=status.manifest, reason=status.reason)


def _build(stage: Stage, bench: Bench, chunk: Sequence[Work], *, force: bool) -> Iterator[Result]:
    """Run the body once for a chunk. What it did not yield before an exception has failed with that exception."""
    works = {work.batch: work for work in chunk}
    with bench.store.scratch() as scratch:
        started = time.monotonic()
        waiting: list[Outcome] = []
        left = set(works)
        try:
            ready = [replace(work, manifests=bench.chain.input_manifests(work.inputs)) for work in works.values()]
            for outcome in stage.build(replace(bench, scratch=scratch), ready):
                waiting.append(outcome)
                left.discard(outcome.batch)
                if len(waiting) >= COMMITTED_TOGETHER:
                    yield from _commit(stage, bench, works, waiting, (time.monotonic() - started) / len(waiting), force)
                    waiting, started = [], time.monotonic()
        except Exception as error:
            if not left:
                raise
            bench.log.error(explain(error))
            failed = [_failed(batch, short(error), error) for batch in sorted(left)]
        else:
            failed = [_failed(batch, "The stage made nothing of it.") for batch in sorted(left)]
        if waiting:
            yield from _commit(stage, bench, works, waiting, (time.monotonic() - started) / len(waiting), force)
        yield from failed


def _commit(
    stage: Stage, bench: Bench, works: Mapping[str, Work], outcomes: Sequence[Outcome], seconds: float, force: bool
) -> Iterator[Result]:
    """Commit outcomes together: flushing many files to disk at once costs little more than flushing one."""
    good = [outcome for outcome in outcomes if not outcome.error]
    code = bench.scratch / f"{uuid.uuid4().hex}.json"
    code.write_text(json.dumps(stage.version.to_dict(), sort_keys=True, indent=1))
    drafts = [(_draft(stage, bench, works[o.batch], o, seconds), {**o.files, CODE_FILE: code}) for o in good]
    for manifest in bench.store.commit_many(drafts, replace=force):
        bench.chain.committed(manifest)
        stage.committed(bench, works[manifest.batch])
        rejected = manifest.verdict == "rejected"
        yield Result(
            batch=manifest.batch,
            did=Did.REJECTED if rejected else Did.BUILT,
            manifest=manifest,
            reason=str(manifest.facts["reason"]) if rejected else "",
        )
    for outcome in outcomes:
        if outcome.error:
            bench.log.error(f"{stage.name} {outcome.batch}: {outcome.error}")
            yield Result(batch=outcome.batch, did=Did.FAILED, reason=outcome.error, passing=outcome.passing)


def _failed(batch: str, reason: str, error: Exception | None = None) -> Result:
    passing = error is not None and classify(error) == "passing"
    return Result(batch=batch, did=Did.FAILED, reason=reason, passing=passing)


def _draft(stage: Stage, bench: Bench, work: Work, outcome: Outcome, seconds: float) -> Manifest:
    facts = {**outcome.facts, "checks": [asdict(check) for check in outcome.checks]}
    facts.setdefault(BUILT_FROM, origin(bench.pipeline, bench.settings))  # what is taken over keeps its own
    if outcome.rejected:
        facts["reason"] = outcome.rejected
    inputs, print_ = work.inputs, work.fingerprint
    if outcome.inputs is not None:
        inputs, print_ = outcome.inputs, fingerprint(stage.version.value, outcome.inputs)
    return Manifest(
        pipeline=bench.pipeline.name,
        stage=stage.name,
        batch=outcome.batch,
        fingerprint=print_,
        code_version=stage.version.value,
        data_version=outcome.data_version,
        inputs=inputs,
        files=(),
        facts=facts,
        verdict=outcome.verdict,
        seconds=round(seconds, 3),
        run_id=bench.run_id,
    )


_PLACES = "ML_PLATFORM_HOME or ML_PLATFORM_STORE"
_MAKE_ROOM = (
    "free some space (`ml-platform gc --dry-run` says what nothing needs), or name places with more; "
    "run it again, and it goes on from there"
)


def explain(error: BaseException) -> str:
    """A platform error speaks for itself; anything else needs its traceback."""
    return str(error) if isinstance(error, PlatformError) else "".join(traceback.format_exception(error))


def short(error: BaseException) -> str:
    """An error in a line or two: a platform error's own words; else its type, text, and where it was raised."""
    if isinstance(error, PlatformError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(StoreError("A disk is full.", where=_PLACES, got=error, fix=_MAKE_ROOM))
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
