"""The chain, one file a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.stages.stage import Stage


def stages_of(pipeline: Pipeline) -> dict[str, Stage]:
    """A pipeline's stages by name, in the order of the chain."""
    from ml_platform.stages.baseline import Baseline
    from ml_platform.stages.chosen_model import ChosenModel
    from ml_platform.stages.evaluation import Evaluation
    from ml_platform.stages.features import Features
    from ml_platform.stages.predictions import Predictions
    from ml_platform.stages.raw_batch import RawBatch
    from ml_platform.stages.reference import ReferenceTable
    from ml_platform.stages.registered_model import RegisteredModel
    from ml_platform.stages.trained_model import TrainedModel
    from ml_platform.stages.training_set import TrainingSet
    from ml_platform.stages.validated_batch import ValidatedBatch

    stages: list[Stage] = [
        RawBatch(pipeline),
        ValidatedBatch(pipeline),
        *(ReferenceTable(pipeline, reference) for reference in pipeline.references),
        Features(pipeline),
        TrainingSet(pipeline),
        Baseline(pipeline),
        *(TrainedModel(pipeline, name) for name in pipeline.recipes),
        *([ChosenModel(pipeline)] if pipeline.candidates else []),
        Evaluation(pipeline),
        RegisteredModel(pipeline),
        *([Predictions(pipeline)] if pipeline.scoring is not None else []),
    ]
    return {stage.name: stage for stage in stages}
