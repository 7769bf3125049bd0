"""features: the team's PySpark function over every accepted batch, many batches in one Spark job."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import FeatureError
from ml_platform.failures import classify
from ml_platform.stages.execute import short
from ml_platform.stages.shown import column_tables, sample_rows
from ml_platform.stages.spark import java_version, started
from ml_platform.stages.stage import Bench, Outcome, Stage, Work
from ml_platform.store.manifest import ArtifactFile, Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from pathlib import Path

    from ml_platform.stages.chain import Chain

PART = "part-"
HOPELESS = 3
"""So many batches that failed alone, with none that succeeded, are taken as a fault of the code."""
ENGINE_CODE = "ml_platform.stages.feature_job:compute"


@dataclass
class _Tally:
    """How batches fared that were tried alone."""

    good: int = 0
    bad: int = 0
    last: str = ""

    @property
    def hopeless(self) -> bool:
        """Whether trying further batches is a waste."""
        return self.bad >= HOPELESS and not self.good


class Features(Stage):
    """One artifact a batch: feature rows, label and keys, as Parquet."""

    name = "features"
    partitioned = True
    kinds = ("pyspark", "parquet")
    chunk = 500

    @property
    def description(self) -> str:
        return (
            f"One partition a batch, one row an example: {len(self.pipeline.features.numeric)} numeric and "
            f"{len(self.pipeline.features.categorical)} categorical features, the label `{self.pipeline.label}` and "
            f"the keys, computed by `{self.pipeline.features.function}`."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("validated_batch", *(reference.name for reference in self.pipeline.references))

    @property
    def lookback(self) -> int:
        return self.pipeline.features.lookback

    def code(self) -> CodeVersion:
        declared = self.pipeline.features
        params = {
            "numeric": declared.numeric,
            "categorical": declared.categorical,
            "keys": declared.keys,
            "label": self.pipeline.label,
            "task": self.pipeline.task,
            "lookback": declared.lookback,
        }
        return code_version((declared.function, ENGINE_CODE), params=params, libraries=("pyspark",))

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """The batch's own validated rows, those of the accepted batches that it looks back on, and the references."""
        references = {r.name: chain.settled(r.name, [""])[""] for r in self.pipeline.references}
        if refused := [m for m in references.values() if isinstance(m, str)]:
            return dict.fromkeys(batches, refused[0])
        common = {name: m.data_version for name, m in references.items() if isinstance(m, Manifest)}
        lookback = self.pipeline.features.lookback
        known = chain.settled("validated_batch", sorted({*batches, *(chain.batches() if lookback else ())}))
        accepted = sorted(b for b, m in known.items() if isinstance(m, Manifest))
        result: dict[str, Mapping[str, str] | str] = {}
        for batch in batches:
            own = known[batch]
            if isinstance(own, str):
                result[batch] = own
                continue
            read = [batch, *earlier(accepted, batch, lookback)]
            versions = {f"validated_batch/{b}": m.data_version for b in read if isinstance(m := known[b], Manifest)}
            result[batch] = {**versions, **common}
        return result

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        # Before anything else: where there is no JVM, no batch is to blame.
        started(bench.spark)
        yield from self._halve(bench, works, _Tally())

    def _halve(self, bench: Bench, works: Sequence[Work], tally: _Tally) -> Iterator[Outcome]:
        """Spark names no batch when a row breaks it: halve until each bad one stands alone.

        Where several fail alone and none has succeeded, it is the code or the machine, and the rest is not tried.
        """
        try:
            yield from self._compute(bench, works)
            tally.good += len(works)
        except FeatureError:
            raise
        except Exception as error:
            if len(works) == 1:
                tally.bad += 1
                tally.last = short(error)
                bench.log.error(f"features of {works[0].batch} failed: {error}")
                yield Outcome(batch=works[0].batch, error=tally.last, passing=classify(error) == "passing")
                return
            bench.log.warning(f"features of {len(works)} batches failed together, trying halves: {error!r:.300}")
            middle = len(works) // 2
            for half in (works[:middle], works[middle:]):
                if tally.hopeless:
                    yield from (Outcome(batch=work.batch, error=f"Not tried: {tally.last}") for work in half)
                else:
                    yield from self._halve(bench, half, tally)

    def _compute(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        from ml_platform.stages.feature_job import compute
        from ml_platform.versions.content import content_versions

        written = compute(
            started(bench.spark),
            self.pipeline,
            self._inputs_on_disk(bench, works),
            history={work.batch: _looked_back(work) for work in works},
            references={
                r.name: bench.store.path(works[0].manifests[r.name].file(f"{r.name}.parquet"))
                for r in self.pipeline.references
            },
            out=bench.scratch / f"features-{short_hash([work.batch for work in works])}",
            targets=[work.batch for work in works],
        )
        contents = content_versions(written)
        java = java_version(started(bench.spark))
        for work in works:
            paths = sorted(written[work.batch])
            yield Outcome(
                batch=work.batch,
                data_version=contents[work.batch].data_version,
                files={f"{PART}{number:05d}.parquet": path for number, path in enumerate(paths)},
                facts={"rows": contents[work.batch].rows, "columns": _columns(paths[0]), "java": java},
            )

    def _inputs_on_disk(self, bench: Bench, works: Sequence[Work]) -> dict[str, dict[str, Path]]:
        found: dict[str, dict[str, Path]] = {}
        for work in works:
            for name, manifest in work.manifests.items():
                stage, _, batch = name.partition("/")
                if stage == "validated_batch" and batch not in found:
                    found[batch] = {
                        s.name: bench.store.path(manifest.file(f"{s.name}.parquet")) for s in self.pipeline.sources
                    }
        return found

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        return {
            "dagster/row_count": manifest.facts["rows"],
            **column_tables({"features": manifest.facts["columns"]}),
            "sample": sample_rows(chain.store.path(parts(manifest)[0])),
        }


def parts(manifest: Manifest) -> list[ArtifactFile]:
    """The Parquet files of a features artifact, in row order. There is at least one."""
    return sorted((file for file in manifest.files if file.name.startswith(PART)), key=lambda file: file.name)


def earlier(accepted: Sequence[str], batch: str, count: int) -> list[str]:
    """The `count` accepted batches before `batch`, nearest first. `accepted` is in name order."""
    at = bisect_left(accepted, batch)
    return list(accepted[max(0, at - count) : at])[::-1]


def _looked_back(work: Work) -> list[str]:
    names = [name.partition("/")[2] for name in work.inputs if name.startswith("validated_batch/")]
    return sorted((name for name in names if name != work.batch), reverse=True)


def _columns(path: Path) -> list[list[str]]:
    import pyarrow.parquet as pq

    return [[field.name, str(field.type)] for field in pq.read_schema(path)]
