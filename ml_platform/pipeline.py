"""What a team writes: a `Pipeline` of sources, references, features, a label, a recipe, a split and gates.

A declaration imports nothing heavy: schemas, functions and models are named "package.module:attribute" and loaded
by the stage that needs them. They are checked here all the same (the module is found, the attribute is in it), so a
typing error is caught when the pipeline is defined and not after five hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ml_platform import declared
from ml_platform.automation.declaration import Automation, NewData, Reconcile, Retrain
from ml_platform.batch_scoring import BatchScoring
from ml_platform.batches import DailyBatches, NamedBatches, Split
from ml_platform.errors import DeclarationError
from ml_platform.evaluation.declaration import ModelGate, Promotion, Threshold
from ml_platform.feeds import Complete, Engine, Format, Reference, Source
from ml_platform.gates.declaration import BatchGate, FeatureGate, Limits
from ml_platform.naming import check_named, module_path, texts_of
from ml_platform.recipe import CANDIDATE, TRAINED_MODEL, Choose, Precision, Recipe, WarmStart, check_candidates
from ml_platform.versions.imports import closure

__all__ = [
    "BATCH_COLUMN",
    "METRICS",
    "MORE_METRICS",
    "Automation",
    "BatchGate",
    "BatchScoring",
    "Complete",
    "DailyBatches",
    "Engine",
    "FeatureGate",
    "Features",
    "Format",
    "Limits",
    "MetricGate",
    "ModelGate",
    "NamedBatches",
    "NewData",
    "Pipeline",
    "Precision",
    "Promotion",
    "Recipe",
    "Reconcile",
    "Reference",
    "Retrain",
    "Source",
    "Split",
    "Task",
    "Threshold",
    "WarmStart",
]

Task = Literal["binary", "multiclass", "regression"]

BATCH_COLUMN = "batch"
"""In every frame that a feature function sees and returns: the batch that a row is computed for."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """How rows to learn from are computed.

    Args:
        function: "module:function" with the signature `(spark, frames, references) -> DataFrame` in plain PySpark.
            `frames` maps a source's name to a DataFrame of its valid rows with one more column, `batch`; `references`
            maps a reference's name to a DataFrame. The result has the columns `batch`, every numeric and categorical
            feature, the label, and the keys. Many batches may come in one call: keep `batch`, and group, join and
            window by it. With a look-back, `frames` also holds the rows of the N batches before, under the `batch`
            that they are computed for, with a column `batch_age` (0 is the batch itself, 1 the one before).
        numeric: names of numeric features. A missing value is a value of its own.
        categorical: names of categorical features (strings or integers).
        keys: columns that say which row it is; carried along, never learned from.
        lookback: how many earlier batches the function sees.
    """

    function: str
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    lookback: int = 0

    def __post_init__(self) -> None:
        check_named("Features.function", self.function, "function")
        for columns in ("numeric", "categorical", "keys"):
            _set(self, **{columns: declared.tuple_of("Features", columns, getattr(self, columns), str)})
        names = [*self.numeric, *self.categorical, *self.keys]
        if not (self.numeric or self.categorical):
            raise DeclarationError("A pipeline needs at least one feature.", where="Features")
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise DeclarationError("A column is declared twice.", where="Features", got=", ".join(twice))
        if BATCH_COLUMN in names:
            raise DeclarationError(f"`{BATCH_COLUMN}` is the platform's column.", where="Features", fix="rename yours")
        if isinstance(self.lookback, bool) or not isinstance(self.lookback, int) or self.lookback < 0:
            raise DeclarationError("A look-back counts earlier batches.", where="Features", got=repr(self.lookback))

    @property
    def columns(self) -> tuple[str, ...]:
        """What the model reads: numeric features, then categorical ones, in declared order."""
        return (*self.numeric, *self.categorical)


@dataclass(frozen=True, kw_only=True)
class MetricGate:
    """A bound on one of evaluation's metrics; a model outside it is not registered."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        where = f"MetricGate {declared.text('MetricGate', 'metric', self.metric)}"
        if (self.at_least is None) == (self.at_most is None):
            raise DeclarationError("A metric gate has one bound: at_least or at_most.", where=where)
        if not declared.is_finite(self.bound):
            raise DeclarationError("A metric gate's bound is a finite number.", where=where, got=repr(self.bound))

    @property
    def bound(self) -> float:
        """The bound that is given."""
        bound = self.at_most if self.at_least is None else self.at_least
        assert bound is not None
        return bound

    def passes(self, value: float) -> bool:
        """Whether `value` is inside the bound. Not-a-number never is."""
        return value <= self.bound if self.at_least is None else value >= self.bound

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.at_least is None else '>='} {self.bound}"


METRICS: Mapping[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "average_precision", "log_loss", "brier", "accuracy"),
    "multiclass": ("accuracy", "log_loss", "f1_macro", "roc_auc_ovr"),
    "regression": ("rmse", "mae", "r2"),
}
"""Metrics that evaluation computes, by task; the first one is shown first."""

MORE_METRICS: Mapping[Task, tuple[str, ...]] = {
    "binary": ("calibration_error", "precision", "recall", "f1"),
    "multiclass": ("calibration_error",),
    "regression": ("error_p50", "error_p90", "error_p99"),
}
"""What evaluation measures beside them, and gates may bound: precision, recall and F1 are those at the model's
threshold (`ModelGate.threshold`), errors are absolute ones that so many percent of the rows do not exceed."""

SHARES = frozenset(
    {"roc_auc", "average_precision", "brier", "accuracy", "f1_macro", "roc_auc_ovr"}
    | {"calibration_error", "precision", "recall", "f1"}
)
"""Metrics that lie in 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A declared product: from landing files to a registered model. Its name prefixes every asset key.

    Args:
        name: lower-case identifier; the registered model has it too.
        description: one paragraph for people.
        owners: e-mail addresses, or "team:name".
        batches: how batches are named.
        sources: at least one.
        references: tables that every batch may read.
        features: how rows are computed.
        label: the column to predict; rows where it is missing are not learned from.
        task: what kind of prediction it is.
        recipe: what to train.
        candidates: several recipes by name, in place of `recipe`: each is trained, and one model goes on.
        choose: of the candidates: "best" goes on with the one that is best on the holdout by `ModelGate.metric` (of
            equals the first), "average" with a model whose answer is the mean of theirs.
        split: which batches train, which are held out.
        batch_gate: how far a batch may be from the accepted batches before it.
        feature_gate: what must hold of the features of all batches together.
        gates: bounds on the holdout's metrics.
        model_gate: how else a model is looked at before it is registered.
        promotion: who makes a registered model the champion, and how much better it must be.
        scoring: score every batch with the champion, in a stage of its own, `predictions`; None makes no such stage.
        leakage_limit: how well one feature alone may separate the label, from 0.5 (it guesses) to 1 (perfectly).
        sample_data: "module:function" yielding `(feed name, batch name or None, pyarrow.Table)`, what
            `ml-platform land NAME` puts into the landing place.
        tags: shown on every asset.
        versions: code versions set by hand, by stage, such as {"features": "3"}. The version then stands for the
            stage's code and libraries, and only its declared parameters count beside it: edits make nothing stale
            until the version is changed. For a stage whose results a rewrite or an upgrade certainly leaves as they
            were and that is costly to build again, or whose code cannot be followed.
        automation: what happens by itself.
    """

    name: str
    description: str
    batches: DailyBatches | NamedBatches
    sources: tuple[Source, ...]
    features: Features
    label: str
    task: Task
    split: Split
    recipe: Recipe | None = None
    candidates: Mapping[str, Recipe] = field(default_factory=dict)
    choose: Choose = "best"
    references: tuple[Reference, ...] = ()
    batch_gate: BatchGate = field(default_factory=BatchGate)
    feature_gate: FeatureGate = field(default_factory=FeatureGate)
    gates: tuple[MetricGate, ...] = ()
    model_gate: ModelGate = field(default_factory=ModelGate)
    promotion: Promotion = field(default_factory=Promotion)
    scoring: BatchScoring | None = None
    owners: tuple[str, ...] = ()
    leakage_limit: float = 0.95
    sample_data: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    automation: Automation = field(default_factory=Automation)

    def __post_init__(self) -> None:
        where = f"Pipeline {self.name!r}"
        declared.identifier("Pipeline", self.name)
        self._check_types(where)
        if not self.sources:
            raise DeclarationError("A pipeline needs at least one source.", where=where)
        if not any(source.required for source in self.sources):
            raise DeclarationError("A pipeline needs at least one source that is required.", where=where)
        feeds = [*(source.name for source in self.sources), *(reference.name for reference in self.references)]
        if twice := sorted({n for n in feeds if feeds.count(n) > 1}):
            raise DeclarationError("Two sources or references have one name.", where=where, got=", ".join(twice))
        if reserved := sorted(set(feeds) & {*RESERVED_NAMES, *self.recipes}):
            raise DeclarationError("A name is reserved for the platform.", where=where, got=", ".join(reserved))
        if self.task not in METRICS:
            raise DeclarationError("Unknown task.", where=where, got=self.task, fix=f"one of {', '.join(METRICS)}")
        if self.label in (*self.features.columns, BATCH_COLUMN):
            raise DeclarationError("The label is also declared as a feature.", where=where, got=self.label)
        self._check_known_later(where)
        self._check_label(where)
        self._check_gates(where)
        self._check_gated_columns(where)
        known = set(self.stage_names)
        if unknown := sorted(set(self.automation.fresh_within) - known):
            raise DeclarationError(
                "There is no such stage.",
                where=f"{where}, Automation.fresh_within",
                got=", ".join(unknown),
                fix=f"one of {', '.join(sorted(known))}",
            )
        if self.split.train and isinstance(self.batches, DailyBatches):
            for day in (*self.split.train, *(self.split.holdout or ())):
                if not self.batches.has(day):
                    raise DeclarationError(
                        "The split names a day that the pipeline does not have.",
                        where=where,
                        got=day,
                        fix=self.batches.describe(),
                    )
        if not (declared.is_finite(self.leakage_limit) and 0.5 < self.leakage_limit <= 1):
            raise DeclarationError("The leakage limit lies in (0.5, 1].", where=where, got=repr(self.leakage_limit))
        declared.owners(where, self.owners)
        declared.tags(where, self.tags)
        declared.versions(where, self.versions, known)
        if self.sample_data is not None:
            check_named(f"{where}, sample_data", self.sample_data, "function")

    def _check_types(self, where: str) -> None:
        for name in ("description", "label", "task"):
            declared.text(where, name, getattr(self, name))
        declared.instance(where, "batches", self.batches, DailyBatches, NamedBatches)
        declared.instance(where, "features", self.features, Features)
        check_candidates(where, self.recipe, self.candidates, self.choose)
        declared.instance(where, "split", self.split, Split)
        declared.instance(where, "batch_gate", self.batch_gate, BatchGate)
        declared.instance(where, "feature_gate", self.feature_gate, FeatureGate)
        declared.instance(where, "model_gate", self.model_gate, ModelGate)
        declared.instance(where, "promotion", self.promotion, Promotion)
        declared.instance(where, "automation", self.automation, Automation)
        declared.instance(where, "scoring", self.scoring, BatchScoring, type(None))
        kinds = {"sources": Source, "references": Reference, "gates": MetricGate, "owners": str}
        for name, kind in kinds.items():
            _set(self, **{name: declared.tuple_of(where, name, getattr(self, name), kind)})

    def _check_gates(self, where: str) -> None:
        metrics = [gate.metric for gate in self.gates]
        for gate in self.gates:
            at = f"{where}, {gate}"
            known = (*METRICS[self.task], *MORE_METRICS[self.task])
            if gate.metric not in known:
                raise DeclarationError(
                    f"A {self.task} pipeline has no such metric.",
                    where=at,
                    got=gate.metric,
                    fix=f"one of {', '.join(known)}",
                )
            if metrics.count(gate.metric) > 1:
                raise DeclarationError("Two gates bound one metric.", where=at, got=gate.metric, fix="keep one")
            if gate.metric in SHARES and not 0 <= gate.bound <= 1:
                raise DeclarationError("The metric lies in 0 to 1, its bound does not.", where=at, got=gate.bound)

    def _check_gated_columns(self, where: str) -> None:
        """The metric and the columns that the gates of features and of the model name."""
        gate, features = self.model_gate, self.features
        if self.promotion.least_gain is not None and gate.champion == "off":
            raise DeclarationError(
                "A gain is asked for, and models are not compared.",
                where=f"{where}, Promotion.least_gain",
                got=self.promotion.least_gain,
                fix='leave it out, or let ModelGate.champion be another than "off"',
            )
        self._known(f"{where}, ModelGate.metric", {gate.metric} - {""}, METRICS[self.task])
        if self.task != "binary" and gate.threshold != Threshold():
            raise DeclarationError(
                "Only of two classes one is called by a threshold.",
                where=f"{where}, ModelGate.threshold",
                got=f"{gate.threshold}, for {self.task}",
                fix="leave the threshold out",
            )
        self._known(f"{where}, ModelGate.slices", set(gate.slices or ()), (*features.categorical, *features.keys))
        self._known(f"{where}, FeatureGate.may_be_constant", {*self.feature_gate.may_be_constant}, features.columns)

    @staticmethod
    def _known(where: str, names: set[str], known: tuple[str, ...]) -> None:
        if unknown := sorted(names - {*known}):
            fix = f"one of {', '.join(known)}"
            raise DeclarationError("A gate names what is not there.", where=where, got=", ".join(unknown), fix=fix)

    def _check_known_later(self, where: str) -> None:
        for source in self.sources:
            if leaks := sorted(set(source.known_later) & set(self.features.columns)):
                raise DeclarationError(
                    "A column that is known only later is declared as a feature.",
                    where=f"{where}, source {source.name!r}",
                    got=", ".join(leaks),
                    fix="remove it from the features: it is not known when a prediction is asked for",
                )

    def _check_label(self, where: str) -> None:
        """The feature function's module, or one that it reaches, must mention the label, or nothing can compute it."""
        module = self.features.function.partition(":")[0]
        if not any(self.label in texts_of(name) for name in closure((module,)).modules if module_path(name)):
            raise DeclarationError(
                "The feature function never names the label.",
                where=f"{where}, {self.features.function}",
                got=self.label,
                fix="return the label as a column of that name, or correct the pipeline's label",
            )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Its stages, those that not every pipeline has included."""
        more = (PREDICTIONS,) if self.scoring is not None else ()
        more = (*more, *(name for name in self.recipes if name != TRAINED_MODEL))
        return (*STAGE_NAMES, *more, *(reference.name for reference in self.references))

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """Everything that is trained, by the stage that trains it: `trained_model`, or `candidate_<name>` for each."""
        if self.recipe is not None:
            return {TRAINED_MODEL: self.recipe}
        return {f"{CANDIDATE}{name}": recipe for name, recipe in self.candidates.items()}

    @property
    def main_metric(self) -> str:
        """The metric by which models are compared."""
        return self.model_gate.main(METRICS[self.task][0])

    def source(self, name: str) -> Source:
        """The source of that name. Raises KeyError."""
        return {source.name: source for source in self.sources}[name]


STAGE_NAMES = (
    "raw_batch",
    "validated_batch",
    "features",
    "training_set",
    "baseline",
    "trained_model",
    "evaluation",
    "registered_model",
)
"""The stages of every pipeline. Each reference is one more, and so is each candidate."""

PREDICTIONS = "predictions"
"""The stage of a pipeline that declares `scoring`."""

RESERVED_NAMES = frozenset({*STAGE_NAMES, PREDICTIONS, "references", "batches", "candidates"})


def _set(declaration: object, **values: object) -> None:
    """Set fields of a frozen dataclass that is being made."""
    for name, value in values.items():
        object.__setattr__(declaration, name, value)
