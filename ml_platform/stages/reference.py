"""References: slowly changing tables that every batch may read. Snapshot and gate in one unpartitioned asset each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml_platform.errors import LandingError
from ml_platform.pipeline import Pipeline, Reference
from ml_platform.stages import gated
from ml_platform.stages.raw_batch import file_name, snapshot
from ml_platform.stages.shown import column_tables, sample_rows
from ml_platform.stages.stage import UNPARTITIONED, Bench, Outcome, Work
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.stages.chain import Chain
    from ml_platform.store.manifest import Manifest

FOLDER = "references"
GATE_CODE = "ml_platform.gates.schema:check"


class ReferenceTable(gated.GatedStage):
    """One artifact: the landed bytes, their canonical Parquet, and the gate's report."""

    def __init__(self, pipeline: Pipeline, reference: Reference) -> None:
        super().__init__(pipeline)
        self.reference = reference
        self.name = reference.name

    @property
    def description(self) -> str:
        return f"The whole table `{self.name}`, unpartitioned: a snapshot of what landed, checked against its schema."

    @property
    def upstream(self) -> tuple[str, ...]:
        return ()

    def code(self) -> CodeVersion:
        return code_version((GATE_CODE, self.reference.schema), params={}, libraries=gated.GATE_LIBRARIES)

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        landed = chain.landing_files(FOLDER, self.reference.format).get(self.name)
        if landed is None:
            name = f"{FOLDER}/{self.name}.{self.reference.format}"
            where = f"{chain.settings.landing}/{self.pipeline.name}"
            return {UNPARTITIONED: f"reference {self.name} has not landed. Put {name} into {where}."}
        digest = chain.digests.of([landed])[landed.url]
        if isinstance(digest, LandingError):
            return {UNPARTITIONED: str(digest)}
        landed_version = {"landing": short_hash({self.name: digest})}
        return {UNPARTITIONED: gated.waivable_inputs(chain, self, UNPARTITIONED, landed_version)}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        from ml_platform.gates.schema import check
        from ml_platform.versions.content import content_versions

        (work,) = works
        landed = bench.chain.landing_files(FOLDER, self.reference.format)[self.name]
        taken = snapshot(bench, work, {self.name: landed}, [self.reference])
        if taken.error:
            yield taken
            return
        raw = taken.files[file_name(self.reference)]
        memory = bench.settings.gate_memory
        waiver = gated.waiver_of(bench.chain, self, work)
        target = bench.scratch / f"{self.name}.parquet"
        report = check(raw, self.reference, memory_mib=memory, out=target, waived=waiver is not None)
        reports = {self.name: report}
        files = {target.name: target} if report.kept(waived=waiver is not None) else {}
        contents = content_versions({name: [path] for name, path in files.items()})
        version = contents[f"{self.name}.parquet"].data_version if files else ""
        outcome = gated.outcome_of(work, reports, files, version=version, folder=bench.scratch, waiver=waiver)
        yield replace(
            outcome,
            files={f"landed/{file_name(self.reference)}": raw, **outcome.files},
            facts={**taken.facts, **outcome.facts},
        )

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        return {
            **gated.waiver_shown(manifest),
            "dagster/row_count": manifest.facts["rows"][self.name],
            **column_tables(manifest.facts["columns"]),
            "sample": sample_rows(chain.store.path(manifest.file(f"{self.name}.parquet"))),
        }
