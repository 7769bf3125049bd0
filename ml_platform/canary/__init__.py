"""A pipeline's whole chain on about a hundredth of its data, in a home that is thrown away.

What a run of hours would trip over (an import, a column, a training job that does not start, a registry that refuses)
trips over it in a minute, before the code is merged. It says nothing of how good a model is: metric gates are computed
and told, and hold nothing back; no batch is compared with others, and no model with the champion. The sample is the
same for the same data: some batches spread evenly over the windows of training and of holdout and, of a large batch,
some rows spread evenly over it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.canary.sample import Sample, land_sample
from ml_platform.overrides import overridden
from ml_platform.pipeline import BatchGate, Limits
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import landing_of
from ml_platform.stages.run import run_pipeline
from ml_platform.stages.summary import GateOutcome

if TYPE_CHECKING:
    from ml_platform.pipeline import MetricGate, Pipeline, Recipe
    from ml_platform.stages.summary import Progress, RunSummary

EPOCHS, BATCH_SIZE = 2, 32
"""In training, at most: so few rows must still make some dozens of steps, or the model says the same of every row."""
NEVER = 1_000_000
"""More accepted batches than there are, so that none is compared with the others."""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """What a canary run came to.

    Args:
        sample: what it ran on.
        summary: of the run.
        stages: names of all stages of the pipeline.
        gates: the pipeline's metric gates with the values that were reached, for information.
    """

    sample: Sample
    summary: RunSummary
    stages: tuple[str, ...]
    gates: tuple[GateOutcome, ...]

    @property
    def trouble(self) -> tuple[str, ...]:
        """Why it is not well; empty where every stage completed."""
        done = {stage.name for stage in self.summary.stages if stage.built + stage.cached and not stage.failed}
        lost = [name for name in self.stages if name not in done]
        told = [f"{', '.join(lost)} did not complete"] if lost else []
        if not lost and self.summary.model is None:
            told.append("no model was registered")
        return (*self.summary.problems, *told)


def run_canary(
    pipeline: Pipeline,
    settings: Settings,
    *,
    share: float = 0.01,
    batches: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Canary:
    """Land a sample of what has landed (of the pipeline's sample data where nothing has) elsewhere, and run the chain.

    Args:
        pipeline: which.
        settings: where its data is; nothing there is changed.
        share: of all rows, above 0 and up to 1.
        batches: how many to take, of both windows together; None takes the share of them, and not less than
            `LEAST_TRAIN` and `LEAST_HOLDOUT`.
        on_progress: told how the run gets on.

    Raises:
        LandingError: there is no data, or none in one of the split's windows.
    """
    with tempfile.TemporaryDirectory(prefix="ml-platform-canary-") as folder:
        home = settings.apart(Path(folder))
        sample = land_sample(pipeline, settings, landing_of(home), share, batches)
        summary = run_pipeline(_small(pipeline, sample), home, on_progress=on_progress)
    return Canary(
        sample=sample,
        summary=summary,
        stages=tuple(stages_of(pipeline)),
        gates=tuple(_outcome(gate, summary) for gate in pipeline.gates),
    )


def _small(pipeline: Pipeline, sample: Sample) -> Pipeline:
    """The pipeline with what would take long cut short, and what a few rows cannot tell left out."""
    candidates = {
        # Two that differ in what is cut short are still two.
        name: _short(recipe, seed=number)
        for number, (name, recipe) in enumerate(pipeline.candidates.items())
    }
    small = replace(
        pipeline,
        recipe=_short(pipeline.recipe, seed=pipeline.recipe.seed) if pipeline.recipe else None,
        candidates=candidates,
    )
    texts = [f"split.holdout_batches={len(sample.holdout)}"] if pipeline.split.train is None else []
    features, model = pipeline.feature_gate, pipeline.model_gate
    return replace(
        overridden(small, texts),
        gates=(),
        batch_gate=BatchGate(history=NEVER, least=NEVER),
        feature_gate=replace(features, drift=_told(features.drift), shift=_told(features.shift)),
        model_gate=replace(model, champion="off", slice_bound=None, calibration=_told(model.calibration)),
    )


def _short(recipe: Recipe, *, seed: int) -> Recipe:
    """The recipe with a few small steps."""
    size = max(recipe.processes, min(recipe.batch_size, BATCH_SIZE) // recipe.processes * recipe.processes)
    return replace(recipe, epochs=min(recipe.epochs, EPOCHS), batch_size=size, seed=seed)


def _told(limits: Limits) -> Limits:
    """These limits as warnings: a few rows are far from what they were by chance alone."""
    return Limits(warn=limits.warn, reject=None)


def _outcome(gate: MetricGate, summary: RunSummary) -> GateOutcome:
    value = summary.metrics.get(gate.metric, math.nan)
    return GateOutcome(name=str(gate), value=value, passed=gate.passes(value))
