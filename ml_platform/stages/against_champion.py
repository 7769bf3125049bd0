"""Is a new model worse than the champion? Found out when it is to be registered, on the same held-out rows.

The champion's answers are those of its own evaluation where that was on the same rows, whatever its features were;
otherwise the champion scores the rows of today. Rows of batches that it has learned from say nothing and are left out.

The comparison is about a candidate that was never the champion. One that was is what the pipeline has gone back to, as
when code or data go back, which is no question of figures. And a champion that has learned from a batch which is
refused now must not keep others out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import FeatureError, RefusedError, TrainingError
from ml_platform.pipeline import BATCH_COLUMN, METRICS
from ml_platform.stages import warm
from ml_platform.stages.evaluation import PREDICTIONS_FILE
from ml_platform.stages.stage import Bench, CheckResult
from ml_platform.stages.trained_model import model_folder
from ml_platform.stages.training_set import TrainingList

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.evaluation.champion import Comparison
    from ml_platform.evaluation.intervals import Answers
    from ml_platform.registry.glance import Champion
    from ml_platform.store.manifest import Manifest

NOT_WORSE = "not_worse_than_champion"
TRAINED = "trained_model"


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What came of it.

    Args:
        message: in a sentence.
        worse: the model is worse beyond noise.
        doubtful: nothing could be compared though there is a champion.
        facts: the champion's version, and the figures.
        against: data version of the champion's model; "" where there is none. None: nobody has looked.
    """

    message: str
    worse: bool = False
    doubtful: bool = False
    against: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def check(self, *, warn: bool) -> CheckResult:
        """As an asset check. `warn`: being worse does not keep the model out."""
        return CheckResult(
            name=NOT_WORSE,
            passed=not (self.worse or self.doubtful),
            description=self.message,
            warn=warn or not self.worse,
            metadata=self.facts,
        )


def beside_champion(bench: Bench, evaluation: Manifest, trained: Manifest, training_set: Manifest) -> Beside:
    """Compare a trained model with the champion of this moment.

    Args:
        bench: what bodies use.
        evaluation, trained, training_set: of the model that is to be registered.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    from ml_platform.registry.glance import champion, stands
    from ml_platform.registry.trail import Trail

    pipeline, registry = bench.pipeline, bench.settings.mlflow
    if pipeline.model_gate.champion == "off":
        return Beside(message="Not compared: ModelGate.champion is off.")
    standing = champion(registry, pipeline.name)
    if standing is None:
        return Beside(message="There is no champion yet.", against="")
    facts: dict[str, Any] = {"champion_version": standing.version}
    if standing.data_version == trained.data_version:
        return Beside(message=f"It is the champion, version {standing.version}.", facts=facts)
    trail = Trail.of(bench.store, pipeline.name, registry).read()
    known = trail.was_champion(trained.data_version) or not trail.decisions
    if known and stands(registry, pipeline.name, trained.data_version):
        return Beside(message="It is registered already, and was judged when it came.", facts=facts)
    return replace(_compared(bench, standing, evaluation, trained, training_set, facts), against=standing.data_version)


def _compared(
    bench: Bench,
    standing: Champion,
    evaluation: Manifest,
    trained: Manifest,
    training_set: Manifest,
    facts: Mapping[str, Any],
) -> Beside:
    """What comes of a comparison with the champion, where one can be made."""
    from ml_platform.evaluation.champion import compare

    pipeline = bench.pipeline
    found = _Champion(bench, standing)
    if spoilt := sorted(found.seen.keys() & training_set.facts["left_out"].keys()):
        message = f"The champion, version {standing.version}, has learned from {spoilt[0]}, which is refused now."
        return Beside(message=f"Nothing is compared: {message}", doubtful=True, facts=facts)
    try:
        both = found.beside(evaluation, trained, training_set)
    except (FeatureError, TrainingError) as error:
        message = f"The champion, version {standing.version}, cannot score these rows: {error}"
        return Beside(message=f"Nothing is compared: {message}", doubtful=True, facts=facts)
    if both is None:
        message = f"The champion, version {standing.version}, has learned from every held-out batch."
        return Beside(message=f"Nothing is compared: {message}", doubtful=True, facts=facts)
    metric = pipeline.model_gate.main(METRICS[pipeline.task][0])
    result = compare(*both, metric, pipeline.model_gate)
    return Beside(
        message=_told(result, standing),
        worse=result.worse,
        doubtful=bool(result.too_few),
        facts={**facts, **_figures(result)},
    )


class _Champion:
    """The champion as it can be had: its artifacts in the store, or its files in the registry."""

    def __init__(self, bench: Bench, standing: Champion) -> None:
        self._bench, self._standing = bench, standing
        manifest = (
            bench.store.find(bench.pipeline.name, TRAINED, standing.fingerprint) if standing.fingerprint else None
        )
        sound = manifest is not None and manifest.data_version == standing.data_version
        self._trained = manifest if sound else None
        self.seen = (warm.seen_by(bench.store, self._trained) if self._trained else None) or {}

    def beside(self, evaluation: Manifest, trained: Manifest, training_set: Manifest) -> tuple[Answers, Answers] | None:
        """The model's answers and the champion's, for the held-out rows that the champion has not learned from.

        Raises:
            FeatureError: the champion cannot read these rows.
            TrainingError: it cannot be loaded.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        own = self._read(evaluation)
        evaluated = self._evaluated()
        both = self._aligned(own, self._read(evaluated)) if evaluated and self._bench.pipeline.features.keys else None
        if both is not None:
            assert self._trained is not None
            classes = _classes(self._bench, self._trained)
        else:
            scored, classes = self._scored(training_set)
            both = self._aligned(own, scored)
        if both is None:
            raise FeatureError("The rows are others than those that the model was evaluated on.")
        learned = pa.array(list(self.seen), pa.string())
        unseen = ~np.asarray(pc.is_in(both[0].column(BATCH_COLUMN), value_set=learned), dtype=bool)
        if not unseen.any():
            return None
        own_classes = _classes(self._bench, trained)
        return self._answers(both[0], own_classes).of(unseen), self._answers(both[1], classes).of(unseen)

    def _read(self, evaluation: Manifest) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(self._bench.store.path(evaluation.file(PREDICTIONS_FILE)))

    def _evaluated(self) -> Manifest | None:
        """The champion's own evaluation; None where the store has none, which says nothing of the model."""
        if self._trained is None or not self._standing.evaluation:
            return None
        version = self._trained.data_version
        try:
            return self._bench.chain.of_version("evaluation", self._standing.evaluation, trained_model=version)
        except RefusedError:
            return None

    def _aligned(self, own: pa.Table, theirs: pa.Table) -> tuple[pa.Table, pa.Table] | None:
        """Both models' answers in one order, by the rows' keys; None where they are not for the same rows."""
        pipeline = self._bench.pipeline
        names = list(dict.fromkeys([BATCH_COLUMN, *pipeline.features.keys, pipeline.label]))
        if own.num_rows != theirs.num_rows or not {*names} <= {*own.column_names} & {*theirs.column_names}:
            return None
        if pipeline.features.keys:
            own, theirs = (table.sort_by([(name, "ascending") for name in names]) for table in (own, theirs))
        return (own, theirs) if own.select(names).equals(theirs.select(names)) else None

    def _answers(self, table: pa.Table, classes: tuple[Any, ...] | None) -> Answers:
        import numpy as np

        from ml_platform.evaluation.intervals import Answers
        from ml_platform.evaluation.predictions import SCORE

        pipeline = self._bench.pipeline
        if pipeline.task == "multiclass":
            scores = np.column_stack([table.column(f"{SCORE}_{name}").to_numpy() for name in classes or ()])
        else:
            scores = table.column(SCORE).to_numpy()
        target = table.column(pipeline.label).to_numpy()
        return Answers(task=pipeline.task, target=target, scores=scores, classes=classes)

    def _scored(self, training_set: Manifest) -> tuple[pa.Table, tuple[Any, ...] | None]:
        """The champion's answers for the held-out rows of today, and its classes."""
        import pyarrow.parquet as pq

        from ml_platform.evaluation.predictions import score
        from ml_platform.training.scoring import Scorer

        store, out = self._bench.store, self._bench.scratch / "champion.parquet"
        holdout = TrainingList.load(store, training_set).holdout
        files = {member.batch: TrainingList.paths(store, [member]) for member in holdout}
        found = score(self._bench.pipeline, Scorer.load(self._folder()), files, out=out)
        return pq.read_table(out), found.classes

    def _folder(self) -> Path:
        into = self._bench.scratch / f"champion-{self._standing.version}"  # another one when it is compared anew
        if self._trained is not None:
            return model_folder(self._bench.store, self._trained, into)
        from ml_platform.registry.connection import Connection
        from ml_platform.registry.models import download

        into.mkdir()
        connection = Connection(self._bench.settings.mlflow)
        return download(connection, self._bench.pipeline.name, self._standing.version, into)


def _classes(bench: Bench, trained: Manifest) -> tuple[Any, ...] | None:
    return tuple(json.loads(bench.store.read_bytes(trained.file("model.json")))["classes"]) or None


def _told(result: Comparison, standing: Champion) -> str:
    what = f"Beside version {standing.version}: {result}."
    if not result.worse:
        return what
    return f"{what} Make a better one; or, if it must take the champion's place, raise ModelGate.tolerance."


def _figures(result: Comparison) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(result).items()}
