"""Metrics by task, all of them scikit-learn's. The names are those of `ml_platform.pipeline.METRICS`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.pipeline import METRICS, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def compute(
    task: Task,
    target: npt.ArrayLike,
    scores: npt.ArrayLike,
    classes: Sequence[Any] | None = None,
) -> dict[str, float]:
    """Compare scores with what came true.

    A metric that these rows do not define (the area under the ROC curve of a holdout with one class only, anything of
    scores that are not finite) is reported as NaN, which passes no gate. It is never replaced by a number that looks
    like an answer.

    Args:
        task: which metrics.
        target: shape (rows,), what came true, without missing values: labels, or numbers for a regression.
        scores: binary: (rows,) probability of the positive class; multiclass: (rows, classes) probabilities;
            regression: (rows,) predictions in the label's unit.
        classes: the model's classes; binary: (negative, positive), multiclass: by column of `scores`. When None, a
            binary target is 0 and 1 or false and true, and the classes of a multiclass one are its values, sorted.

    Returns:
        One number for each name in METRICS[task], in that order. Error measures are in the label's unit, areas,
        accuracy and the Brier score lie in 0 to 1, log loss is in nats.

    Raises:
        RefusedError: no rows, shapes that do not fit each other, or labels that the classes do not have (binary).
    """
    import numpy as np

    truth, found = np.asarray(target), np.asarray(scores, dtype=np.float64)
    if len(truth) == 0:
        raise RefusedError(
            "There is nothing to evaluate on.",
            where="holdout",
            got="0 rows with a label",
            fix="let the split's holdout name batches that have landed and whose labels are known",
        )
    expected = 2 if task == "multiclass" else 1
    if found.ndim != expected or len(found) != len(truth):
        raise RefusedError("Scores do not fit the rows.", where=task, got=f"{found.shape} for {len(truth)} rows")
    if not np.isfinite(found).all():
        return dict.fromkeys(METRICS[task], float("nan"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metrics that are undefined here: they are NaN below, which says it all
        match task:
            case "binary":
                values = _binary(binary_target(truth, classes), found)
            case "multiclass":
                values = _multiclass(truth, found, classes)
            case "regression":
                values = _regression(truth.astype(np.float64), found)
    return {name: float(values[name]) for name in METRICS[task]}


def binary_target(target: npt.ArrayLike, classes: Sequence[Any] | None = None) -> npt.NDArray[np.int64]:
    """A binary label as 0 and 1, shape (rows,). The positive class is the second of `classes`.

    Raises:
        RefusedError: a label is neither of the two.
    """
    import numpy as np

    truth = np.asarray(target)
    negative, positive = classes if classes is not None else (0, 1)
    is_positive, is_negative = truth == positive, truth == negative
    if not (is_positive | is_negative).all():
        raise RefusedError(
            "A label is neither of the model's two classes.",
            where=f"classes {negative!r} and {positive!r}",
            got=", ".join(repr(v) for v in np.unique(truth[~(is_positive | is_negative)]).tolist()[:5]),
            fix="let the pipeline's label have two values, or declare the task as multiclass",
        )
    return np.asarray(is_positive, dtype=np.int64)


def _binary(truth: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> dict[str, float]:
    import sklearn.metrics as sk

    both = 0 < truth.sum() < len(truth)
    return {
        "roc_auc": sk.roc_auc_score(truth, scores) if both else float("nan"),
        "average_precision": sk.average_precision_score(truth, scores) if truth.any() else float("nan"),
        "log_loss": sk.log_loss(truth, scores, labels=[0, 1]),
        "brier": sk.brier_score_loss(truth, scores, pos_label=1),
        "accuracy": sk.accuracy_score(truth, scores >= 0.5),
    }


def _multiclass(
    truth: npt.NDArray[Any], scores: npt.NDArray[np.float64], classes: Sequence[Any] | None
) -> dict[str, float]:
    import numpy as np
    import sklearn.metrics as sk

    names = np.unique(truth) if classes is None else np.asarray(classes)
    if scores.shape[1] != len(names):
        raise RefusedError("Scores do not fit the classes.", got=f"{scores.shape[1]} columns for {len(names)} classes")
    # A class that the model never saw is an error in every row of it (index -1), and has no probability to judge.
    index = {name: number for number, name in enumerate(names.tolist())}
    actual = np.array([index.get(value, -1) for value in truth.tolist()])
    predicted = scores.argmax(axis=1)
    columns = np.arange(len(names))
    known = bool((actual >= 0).all())
    every = known and len(np.unique(actual)) == len(names)
    return {
        "accuracy": sk.accuracy_score(actual, predicted),
        "log_loss": sk.log_loss(actual, scores, labels=columns) if known else float("nan"),
        "f1_macro": sk.f1_score(actual, predicted, average="macro", zero_division=0.0),
        "roc_auc_ovr": _area_over_rest(actual, scores) if every else float("nan"),
    }


def _area_over_rest(actual: npt.NDArray[Any], scores: npt.NDArray[np.float64]) -> float:
    """Macro average of each class's area against the rest. scikit-learn refuses two columns, so those are one area."""
    import sklearn.metrics as sk

    if scores.shape[1] < 2:
        return float("nan")
    if scores.shape[1] == 2:
        return float(sk.roc_auc_score(actual, scores[:, 1]))
    # Rows sum to one only up to float32's rounding, which scikit-learn refuses.
    shares = scores / scores.sum(axis=1, keepdims=True)
    return float(sk.roc_auc_score(actual, shares, multi_class="ovr", average="macro"))


def _regression(truth: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> dict[str, float]:
    import sklearn.metrics as sk

    return {
        "rmse": sk.root_mean_squared_error(truth, scores),
        "mae": sk.mean_absolute_error(truth, scores),
        "r2": sk.r2_score(truth, scores) if len(truth) > 1 else float("nan"),
    }
