"""validated_batch: the gate. Every source of a batch against its pandera schema; a rejected batch publishes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml_platform.stages import gated
from ml_platform.stages.raw_batch import file_name
from ml_platform.stages.shown import column_tables, sample_rows
from ml_platform.stages.stage import Bench, Outcome, Work
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from pathlib import Path

    from ml_platform.gates.report import GateReport
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest


class ValidatedBatch(gated.GatedStage):
    """One artifact a batch: canonical Parquet by source, and the gate's report. Rejected ones are kept as evidence."""

    name = "validated_batch"
    partitioned = True
    chunk = 50

    @property
    def description(self) -> str:
        return (
            "One partition a batch: the rows of every source, checked against its schema and written as Parquet. "
            "Only an accepted batch has a materialization, or one that a person has waived; a rejected one has failed "
            "checks and an observation that says why, and no later stage reads it."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("raw_batch",)

    def code(self) -> CodeVersion:
        roots = [gated.GATE_CODE, *(source.schema for source in self.pipeline.sources)]
        if not all(source.required for source in self.pipeline.sources):
            roots.append("ml_platform.gates.absent:absent")
        return code_version(roots, params={}, libraries=gated.GATE_LIBRARIES)

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        withdrawn = chain.withdrawals.holding()
        settled = chain.settled("raw_batch", batches)
        settled |= {batch: withdrawn[batch].describe() for batch in batches if batch in withdrawn}
        return {
            b: m if isinstance(m, str) else gated.waivable_inputs(chain, self, b, {f"raw_batch/{b}": m.data_version})
            for b, m in settled.items()
        }

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        from ml_platform.versions.content import content_versions

        checked: dict[str, tuple[dict[str, GateReport], dict[str, Path]]] = {}
        for work in works:
            raw, without = work.manifests[f"raw_batch/{work.batch}"], self._absent(work)
            landed = {
                s.name: bench.store.path(raw.file(file_name(s))) for s in self.pipeline.sources if s.name not in without
            }
            out = bench.scratch / short_hash(work.batch)
            out.mkdir()
            waived = gated.waiver_of(bench.chain, self, work) is not None
            checked[work.batch] = gated.check_feeds(
                self.pipeline.sources, landed, out, bench.settings.gate_memory, work.batch, waived=waived
            )
        versions = content_versions(
            {f"{batch}/{name}": [path] for batch, (_, files) in checked.items() for name, path in files.items()}
        )
        for work in works:
            reports, files = checked[work.batch]
            contents = {name: versions[f"{work.batch}/{name}"].data_version for name in files}
            folder = bench.scratch / short_hash(work.batch)
            waiver = gated.waiver_of(bench.chain, self, work)
            outcome = gated.outcome_of(work, reports, files, version=short_hash(contents), folder=folder, waiver=waiver)
            if without := self._absent(work):
                outcome = replace(outcome, facts={**outcome.facts, "absent": without})
            yield outcome

    def _absent(self, work: Work) -> list[str]:
        """The optional sources that the batch was taken without."""
        there = {file.name for file in work.manifests[f"raw_batch/{work.batch}"].files}
        return [s.name for s in self.pipeline.sources if not s.required and file_name(s) not in there]

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        shown: dict[str, Any] = {"dagster/row_count": sum(manifest.facts["rows"].values())}
        shown |= gated.waiver_shown(manifest)
        shown |= {f"rows of {feed}": rows for feed, rows in manifest.facts["rows"].items()}
        shown |= column_tables(manifest.facts["columns"])
        if missing := manifest.facts.get("absent"):
            shown["absent"] = ", ".join(missing)
        first = next(source.name for source in self.pipeline.sources if source.required)
        shown[f"sample of {first}"] = sample_rows(chain.store.path(manifest.file(f"{first}.parquet")))
        return shown
