"""Which plots go with which task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation import plots
from ml_platform.evaluation.metrics import binary_target
from ml_platform.pipeline import Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def draw(
    task: Task,
    target: npt.NDArray[Any],
    scores: Mapping[str, npt.NDArray[np.float64]],
    classes: Sequence[Any] | None,
) -> dict[str, bytes]:
    """The holdout's plots as PNG, by name.

    Args:
        task: what kind of prediction.
        target: (rows,) labels.
        scores: by model name, as `metrics.compute` takes them; the first is the trained model's.
        classes: as `metrics.compute` takes them.
    """
    import numpy as np

    first = next(iter(scores))
    if task == "regression":
        return {"predicted_actual": plots.predicted_actual(target.astype(np.float64), scores)}
    if task == "multiclass":
        assert classes is not None
        predicted = np.asarray(classes)[scores[first].argmax(axis=1)]
        return {"confusion": plots.confusion(target, predicted, classes, name=first)}
    truth = binary_target(target, classes)
    return {
        "roc": plots.roc(truth, scores),
        "calibration": plots.calibration(truth, scores),
        "scores": plots.score_histogram(truth, scores[first], name=first),
    }
