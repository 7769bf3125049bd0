"""Every figure of one model on some rows, by name: its task's metrics, and what evaluation measures beside them."""

from __future__ import annotations

import math

from ml_platform.evaluation import metrics
from ml_platform.evaluation import threshold as thresholds
from ml_platform.evaluation.calibration import calibration_error
from ml_platform.evaluation.declaration import Threshold
from ml_platform.evaluation.details import error_quantiles
from ml_platform.evaluation.intervals import Answers
from ml_platform.pipeline import METRICS, MORE_METRICS


def figures(answers: Answers, rule: Threshold) -> dict[str, float]:
    """Every figure, NaN where it is not defined, in the order of METRICS and MORE_METRICS.

    Args:
        answers: of a model.
        rule: by which a model of two classes chooses its threshold on these very rows.

    Raises:
        RefusedError: as `metrics.compute`.
    """
    found = metrics.compute(answers.task, answers.target, answers.scores, answers.classes)
    error = calibration_error(answers)
    match answers.task:
        case "binary":
            value = thresholds.choose(answers, rule)
            at = thresholds.at(answers, value) if value is not None else {}
            found |= {"calibration_error": error, **dict.fromkeys(thresholds.NAMES, math.nan), **at}
        case "multiclass":
            found["calibration_error"] = error
        case "regression":
            found |= error_quantiles(answers)
    return {name: found[name] for name in (*METRICS[answers.task], *MORE_METRICS[answers.task])}
