"""validated_batch: the gate. Every source of a batch against its schema and the batches before; a rejected one
publishes nothing."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ml_platform.failures import classify
from ml_platform.gates.report import FAMILIES, HISTORY_FAMILIES
from ml_platform.gates.waivers import HISTORY
from ml_platform.pipeline import DailyBatches
from ml_platform.stages import gated
from ml_platform.stages.execute import explain, short
from ml_platform.stages.history import CONTENTS, profile_file
from ml_platform.stages.raw_batch import file_name
from ml_platform.stages.shown import column_tables, sample_rows
from ml_platform.stages.spark import started
from ml_platform.stages.stage import Bench, Outcome, Work
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import fingerprint, short_hash

if TYPE_CHECKING:
    from pathlib import Path

    from ml_platform.gates.batch import Looked
    from ml_platform.gates.report import GateReport
    from ml_platform.pipeline import Source
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest

GATE_CODE = ("ml_platform.gates.batch:look", "ml_platform.gates.batch:judge")
SHORT = "short"
QUARANTINE = "quarantine/"
"""Folder, inside the artifact, of rows that were set aside."""


class ValidatedBatch(gated.GatedStage):
    """One artifact a batch: canonical Parquet by source, and the gate's report. Rejected ones are kept as evidence."""

    name = "validated_batch"
    partitioned = True
    chunk = 50
    families: ClassVar[Mapping[str, str]] = {**FAMILIES, **HISTORY_FAMILIES}

    @property
    def description(self) -> str:
        return (
            "One partition a batch: the rows of every source, checked against its schema, compared with the accepted "
            "batches before it, and written as Parquet. Only an accepted batch has a materialization, or one that a "
            "person has waived; a rejected one has failed checks and an observation that says why, and no later stage "
            "reads it."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("raw_batch",)

    def code(self) -> CodeVersion:
        roots = [*GATE_CODE, *(source.schema for source in self.pipeline.sources)]
        params = {
            "gate": asdict(self.pipeline.batch_gate),
            "days": self.pipeline.batches.timezone if isinstance(self.pipeline.batches, DailyBatches) else None,
            "sources": {source.name: source.judged_by() for source in self.pipeline.sources},
        }
        return code_version(roots, params=params, libraries=(*gated.GATE_LIBRARIES, "datasketches"))

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """The batch's snapshot, and the waiver that holds for it; and whether there is little to compare it with.

        What it is compared with is no input, but evidence: a verdict is given once, on what was accepted by then. Only
        one that was given on too few batches, of which there are more by now, is given again.
        """
        withdrawn = chain.withdrawals.holding()
        settled = chain.settled("raw_batch", batches)
        settled |= {batch: withdrawn[batch].describe() for batch in batches if batch in withdrawn}
        first = self._first(chain)
        return {
            batch: raw if isinstance(raw, str) else self._given(chain, batch, raw, short=batch in first)
            for batch, raw in settled.items()
        }

    def _given(self, chain: Chain, batch: str, raw: Manifest, *, short: bool) -> Mapping[str, str]:
        given = {f"raw_batch/{batch}": raw.data_version, **({HISTORY: SHORT} if short else {})}
        return gated.waivable_inputs(chain, self, batch, given)

    def _first(self, chain: Chain) -> set[str]:
        """The batches before which fewer are accepted than it takes to compare; what is not judged yet may be.

        A verdict that was once given with enough before it stands, also where some of those are withdrawn now.
        """
        least, code = self.pipeline.batch_gate.least, self.version.value
        names = [batch for batch in chain.taken() if batch not in chain.withdrawals.holding()]
        accepted, first = 0, set[str]()
        for start in range(0, len(names), 2 * least):
            some = chain.settled("raw_batch", names[start : start + 2 * least])
            prints = {
                (batch, short): fingerprint(code, self._given(chain, batch, raw, short=short))
                for batch, raw in some.items()
                if not isinstance(raw, str)
                for short in (False, True)
            }
            known = chain.lookup(self.name, prints.values())
            for batch in some:
                if accepted >= least:
                    return first
                verdict = known.get(prints.get((batch, False), ""))
                if verdict is None:
                    first.add(batch)
                    verdict = known.get(prints.get((batch, True), ""))
                accepted += verdict is None or verdict.verdict != "rejected"
        return first

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        """Look at every batch's files by themselves, then compare one batch after the other with those before it.

        A batch at which the gate itself fails stops no other.
        """
        from ml_platform.versions.content import content_versions

        works = sorted(works, key=lambda work: work.batch)
        looked: dict[str, dict[str, Looked]] = {}
        for work in works:
            try:
                looked[work.batch] = self._look(bench, work)
            except _crashes() as error:
                yield _failed(bench, work, error)
        versions = content_versions(
            {
                f"{batch}/{name}": [its.file]
                for batch, sources in looked.items()
                for name, its in sources.items()
                if its.file is not None
            }
        )
        for work in works:
            if work.batch not in looked:
                continue
            sources = looked[work.batch]
            found = {name: versions.get(f"{work.batch}/{name}") for name in sources}
            contents = {name: version.data_version for name, version in found.items() if version is not None}
            try:
                outcome = self._judge(bench, work, sources, contents)
            except _crashes() as error:
                outcome = _failed(bench, work, error)
            yield outcome

    def _look(self, bench: Bench, work: Work) -> dict[str, Looked]:
        """Each source's file by itself."""
        from ml_platform.gates.batch import look

        raw, without = work.manifests[f"raw_batch/{work.batch}"], self._absent(work)
        out = bench.scratch / short_hash(work.batch)
        out.mkdir()
        return {
            source.name: look(
                None if source.name in without else bench.store.path(raw.file(file_name(source))),
                self.pipeline,
                source,
                batch=work.batch,
                out=out,
                memory_mib=bench.settings.gate_memory,
                waived=gated.waiver_of(bench.chain, self, work) is not None,
                check=_engine(bench, source),
            )
            for source in self.pipeline.sources
        }

    def _judge(self, bench: Bench, work: Work, looked: Mapping[str, Looked], contents: Mapping[str, str]) -> Outcome:
        """The verdict on a batch, which from then on is among those that later ones are compared with."""
        from ml_platform.gates.batch import accepted_of, judge, version_of

        history = bench.chain.history
        version = version_of(contents)
        gate = self.pipeline.batch_gate
        before = history.before(work.batch, gate.history)
        if len(before) < gate.least and HISTORY not in work.inputs:
            if unread := history.unread(work.batch):
                return Outcome(
                    batch=work.batch,
                    error=f"It can be compared with {len(before)} accepted batches only: {unread} and others were "
                    "accepted by another version of the platform. Validate those first: "
                    f"`ml-platform run {self.pipeline.name}`.",
                )
            # Of those before it some turned out to be bad: once there are enough, it is judged again.
            work = replace(work, inputs={**work.inputs, HISTORY: SHORT})
        landed = work.manifests[f"raw_batch/{work.batch}"].facts.get("landed_at", {})
        reports = judge(
            self.pipeline,
            looked,
            batch=work.batch,
            contents=contents,
            before=before,
            repeated=history.same(work.batch, version),
            landed={name: dt.datetime.fromisoformat(at) for name, at in landed.items()},
        )
        folder = bench.scratch / short_hash(work.batch)
        outcome = gated.outcome_of(
            work,
            reports,
            {f"{name}.parquet": its.file for name, its in looked.items() if its.file is not None},
            version=version,
            folder=folder,
            waiver=gated.waiver_of(bench.chain, self, work),
        )
        evidence: dict[str, Path] = {}
        for name, its in looked.items():
            if its.quarantine is not None:
                evidence[f"{QUARANTINE}{name}.parquet"] = its.quarantine
            if its.profile is not None:
                evidence[profile_file(name)] = folder / profile_file(name)
                evidence[profile_file(name)].write_text(its.profile.to_json())
        if not outcome.rejected:
            history.judged(work.batch, version, accepted_of(looked, contents, work.batch))
        facts: dict[str, Any] = {CONTENTS: contents, "compared with": [batch for batch, _ in before]}
        if aside := {name: report.quarantined for name, report in reports.items() if report.quarantined}:
            facts["quarantined"] = aside
        if without := self._absent(work):
            facts["absent"] = without
        files = {**outcome.files, **evidence}
        return replace(outcome, files=files, facts={**outcome.facts, **facts}, inputs=work.inputs)

    def _absent(self, work: Work) -> list[str]:
        """The optional sources that the batch was taken without."""
        there = {file.name for file in work.manifests[f"raw_batch/{work.batch}"].files}
        return [s.name for s in self.pipeline.sources if not s.required and file_name(s) not in there]

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        shown: dict[str, Any] = {"dagster/row_count": sum(manifest.facts["rows"].values())}
        shown |= gated.waiver_shown(manifest)
        shown |= {f"rows of {feed}": rows for feed, rows in manifest.facts["rows"].items()}
        shown |= {f"quarantined rows of {feed}": rows for feed, rows in manifest.facts.get("quarantined", {}).items()}
        if compared := manifest.facts.get("compared with"):
            shown["compared with"] = f"{len(compared)} accepted batches, {compared[0]} to {compared[-1]}"
        shown |= column_tables(manifest.facts["columns"])
        if missing := manifest.facts.get("absent"):
            shown["absent"] = ", ".join(missing)
        first = next(source.name for source in self.pipeline.sources if source.required)
        shown[f"sample of {first}"] = sample_rows(chain.store.path(manifest.file(f"{first}.parquet")))
        return shown


def _crashes() -> tuple[type[BaseException], ...]:
    """What a fault of the gate, or of a team's check, may raise. polars' panics derive from BaseException."""
    import polars as pl

    return Exception, pl.exceptions.PanicException


def _failed(bench: Bench, work: Work, error: BaseException) -> Outcome:
    """A batch of which nothing can be said."""
    bench.log.error(f"validated_batch of {work.batch}: {explain(error)}")
    passing = isinstance(error, Exception) and classify(error) == "passing"
    return Outcome(batch=work.batch, error=short(error), passing=passing)


def _engine(bench: Bench, source: Source) -> Callable[..., GateReport]:
    """What asks the schema. Spark is started only where a source wants it."""
    if source.engine == "spark":
        from ml_platform.gates import on_spark

        return functools.partial(on_spark.check, started(bench.spark))
    from ml_platform.gates.schema import check

    return check
