"""predictions: every accepted batch, scored by the model that is champion when its turn comes.

Optional, and the only stage with partitions below the registered model. What it reads is the registry's alias, not what
this pipeline trained last: so it honours a promotion by a person and a rollback, and goes on with the champion that
stands while a new model waits or was refused.

A batch that was scored stays as it is while its features and the scoring code do, whoever is champion later: its inputs
are then those that it was scored with. `BatchScoring(rescore=True)` asks for the champion of now instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.pipeline import BATCH_COLUMN, PREDICTIONS
from ml_platform.stages.chain import State
from ml_platform.stages.features import parts
from ml_platform.stages.shown import column_tables, sample_rows
from ml_platform.stages.stage import Bench, Outcome, Stage, Work
from ml_platform.stages.trained_model import model_folder
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.stages.chain import Chain
    from ml_platform.training.scoring import Scorer

PREDICTIONS_FILE = "predictions.parquet"
CHAMPION = "champion"
"""The input that is the model: its data version."""
THRESHOLD = "threshold"
"""The input that is a binary model's threshold, where it has one."""
REGISTERED, TRAINED = "registered_model", "trained_model"
MODEL_VERSION, MODEL_DATA_VERSION = "model_version", "model_data_version"
ROWS = 65_536
"""Rows read, scored and written at a time."""


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A registered model, ready to score: MLflow's version of it, its data version, and its threshold."""

    version: str
    data_version: str
    scorer: Scorer
    threshold: float


class Predictions(Stage):
    """One artifact a batch: keys and scores of its rows, and which model said so."""

    name = PREDICTIONS
    partitioned = True
    apart = True
    kinds = ("pytorch", "parquet")
    chunk = 500

    @property
    def description(self) -> str:
        when = "again when there is another champion" if self._rescores else "once: a later champion changes nothing"
        return (
            f"One partition a batch, one row a feature row: what the champion of `{self.pipeline.name}` says of it, "
            f"labels or not. Scored {when}."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        """The registered model only where a new one makes what was scored out of date: Dagster says so of all that
        is below it."""
        return ("features", REGISTERED) if self._rescores else ("features",)

    @property
    def _rescores(self) -> bool:
        return self.pipeline.scoring is not None and self.pipeline.scoring.rescore

    def code(self) -> CodeVersion:
        features = self.pipeline.features
        params = {"layout": 1, "keys": features.keys, "features": features.columns}
        roots = ("ml_platform.training.answers:answer", "ml_platform.training.scoring:Scorer")
        return code_version(roots, params=params, libraries=("torch",))

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """The batch's features and the champion; of a batch that was scored, the model that has scored it."""
        features = chain.settled("features", batches)
        scored = {} if self._rescores else self._scored(chain)
        found: dict[str, Mapping[str, str] | str] = {}
        champion: Mapping[str, str] | str | None = None
        for batch in batches:
            own = features[batch]
            if isinstance(own, str):
                found[batch] = own
                continue
            if earlier := scored.get((batch, own.data_version)):
                found[batch] = earlier
                continue
            champion = self._champion(chain) if champion is None else champion
            given = champion if isinstance(champion, str) else {f"features/{batch}": own.data_version, **champion}
            found[batch] = given
        return found

    def _scored(self, chain: Chain) -> dict[tuple[str, str], Mapping[str, str]]:
        """Inputs of what is published and the present code has made, by batch and data version of its features."""
        published = chain.published.versions(self.name)
        if not published:
            return {}
        return {
            (each.batch, each.inputs[f"features/{each.batch}"]): dict(each.inputs)
            for each in chain.store.artifacts(self.pipeline.name, self.name)
            if published.get(each.batch) == each.data_version and each.code_version == self.version.value
        }

    def _champion(self, chain: Chain) -> dict[str, str] | str:
        """The champion of now as inputs, or why there is none to score with."""
        from ml_platform.registry.glance import champion

        if self._rescores and chain.planning:
            statuses = chain.statuses(REGISTERED) if chain.scope is None or REGISTERED in chain.scope else {}
            if any(status.state in (State.STALE, State.BLOCKED) for status in statuses.values()):
                return f"{REGISTERED} comes first: it may bring another champion."
        name = self.pipeline.name
        standing = champion(chain.settings.mlflow, name)
        if standing is None:
            return f"{name} has no champion yet: a batch is scored as soon as a model is registered and promoted."
        if not standing.data_version:
            return (
                f"The champion of {name}, version {standing.version}, was not registered by the platform, which cannot "
                f"score with it: point the alias `champion` at another version."
            )
        threshold = {THRESHOLD: standing.threshold} if standing.threshold else {}
        return {CHAMPION: standing.data_version, "registry": short_hash(chain.settings.mlflow), **threshold}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        from ml_platform.versions.content import content_versions

        by_model: dict[tuple[str, str], list[Work]] = {}
        for work in works:
            by_model.setdefault((work.inputs[CHAMPION], work.inputs.get(THRESHOLD, "")), []).append(work)
        for (data_version, threshold), of_model in by_model.items():
            model = _load(bench, data_version, threshold)
            for work in of_model:
                table = bench.scratch / f"{short_hash([work.batch, data_version])}.parquet"
                features = work.manifests[f"features/{work.batch}"]
                columns = self._write(bench.store.paths(parts(features)), work.batch, model, table)
                content = content_versions({work.batch: [table]})[work.batch]
                yield Outcome(
                    batch=work.batch,
                    data_version=content.data_version,
                    files={PREDICTIONS_FILE: table},
                    facts={
                        "rows": content.rows,
                        "columns": columns,
                        "model": self.pipeline.name,
                        MODEL_VERSION: model.version,
                        MODEL_DATA_VERSION: model.data_version,
                    },
                )

    def _write(self, files: Sequence[Path], batch: str, model: _Model, out: Path) -> list[list[str]]:
        """Score feature files into one. Returns its columns and their types."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        keys = [name for name in self.pipeline.features.keys if name != BATCH_COLUMN]
        wanted = list(dict.fromkeys([*keys, *model.scorer.columns]))
        writer: pq.ParquetWriter | None = None
        try:
            for path in files:
                with pq.ParquetFile(path) as file:
                    pieces = list(file.iter_batches(batch_size=ROWS, columns=wanted)) or [
                        pa.RecordBatch.from_pylist([], schema=pa.schema([file.schema_arrow.field(n) for n in wanted]))
                    ]
                for piece in pieces:
                    said = self._said(pa.Table.from_batches([piece]), keys, batch, model)
                    if writer is None:
                        writer = pq.ParquetWriter(out, said.schema, compression="zstd")
                    writer.write_table(said.cast(writer.schema))
            assert writer is not None
            return [[field.name, str(field.type)] for field in writer.schema]
        finally:
            if writer is not None:
                writer.close()

    def _said(self, rows: pa.Table, keys: Sequence[str], batch: str, model: _Model) -> pa.Table:
        import pyarrow as pa

        from ml_platform.training.answers import answer

        said = {BATCH_COLUMN: batch, MODEL_VERSION: model.version, MODEL_DATA_VERSION: model.data_version}
        columns: dict[str, Any] = {BATCH_COLUMN: pa.array([batch] * rows.num_rows, pa.string())}
        columns |= {name: rows.column(name) for name in keys}
        columns |= answer(model.scorer, model.scorer.score(rows), model.threshold)
        for name in (MODEL_VERSION, MODEL_DATA_VERSION):
            columns[name] = pa.array([said[name]] * rows.num_rows, pa.string())
        told = {f"ml_platform.{name}": text for name, text in said.items()}
        return pa.table(columns).replace_schema_metadata({"ml_platform.model": self.pipeline.name, **told})

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        facts = manifest.facts
        return {
            "dagster/row_count": facts["rows"],
            "scored by": f"{facts['model']} version {facts[MODEL_VERSION]}",
            MODEL_VERSION: facts[MODEL_VERSION],
            MODEL_DATA_VERSION: facts[MODEL_DATA_VERSION],
            **column_tables({PREDICTIONS: facts["columns"]}),
            "sample": sample_rows(chain.store.path(manifest.file(PREDICTIONS_FILE))),
        }


def _load(bench: Bench, data_version: str, threshold: str) -> _Model:
    """The registered model of a data version, most often the champion: from the store, else from the registry.

    Raises:
        RefusedError: the registry has no such version any more.
        RegistryError: the registry cannot be asked, or what it holds is not what was registered.
    """
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.glance import champion
    from ml_platform.registry.models import FINGERPRINT_TAG, download
    from ml_platform.training.answers import EVEN
    from ml_platform.training.scoring import Scorer

    name = bench.pipeline.name
    standing = champion(bench.settings.mlflow, name)
    if standing is not None and standing.data_version == data_version:
        version, fingerprint = standing.version, standing.fingerprint
    else:
        version, tags = _earlier(bench, data_version)
        fingerprint = tags.get(FINGERPRINT_TAG, "")
    folder = bench.scratch / f"model-{short_hash([data_version, threshold])}"
    trained = bench.store.find(name, TRAINED, fingerprint) if fingerprint else None
    if trained is not None and trained.data_version == data_version:
        model_folder(bench.store, trained, folder)
    else:
        folder.mkdir()
        folder = download(Connection(bench.settings.mlflow), name, version, folder)
    least = float(threshold) if threshold else EVEN
    return _Model(version=version, data_version=data_version, scorer=Scorer.load(folder), threshold=least)


def _earlier(bench: Bench, data_version: str) -> tuple[str, Mapping[str, str]]:
    """The newest version of a model that was the champion, and its tags."""
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.models import COMPLETE_TAG, DAMAGED_TAG
    from ml_platform.registry.upload import DATA_VERSION_TAG
    from ml_platform.registry.versions import versions_of

    name = bench.pipeline.name
    for version in reversed(versions_of(Connection(bench.settings.mlflow), name)):
        sound = version.tags.get(COMPLETE_TAG) == "true" and DAMAGED_TAG not in version.tags
        if sound and version.tags.get(DATA_VERSION_TAG) == data_version:
            return version.version, version.tags
    raise RefusedError(
        "The model that has scored a batch is no longer registered.",
        where=f"{name}, model data version {data_version}",
        fix=f"score the batch with the champion: `ml-platform run {name} --set scoring.rescore=true`",
    )
