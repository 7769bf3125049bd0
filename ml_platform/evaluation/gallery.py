"""Which pictures a model of a task has, by their titles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation import plots
from ml_platform.evaluation.calibration import said
from ml_platform.evaluation.intervals import Answers
from ml_platform.evaluation.metrics import binary_target

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODEL = "model"
SLICES = 16
"""Slices in the picture: half of them of declared columns."""


def pictures(answers: Mapping[str, Answers], facts: Mapping[str, Any], metric: str) -> dict[str, bytes]:
    """Every picture of an evaluation.

    Args:
        answers: by name, for the same rows, the model's first.
        facts: what else was found: `metrics`, and where there are any `threshold`, `slices`, `found_slices`,
            `over_time` and `importance`, as the evaluation's manifest holds them.
        metric: the one by which batches, slices and features are looked at.

    Returns:
        PNG by title. Where scores are not finite there is nothing of them to draw.
    """
    import numpy as np

    first = next(iter(answers.values()))
    finite = {name: each for name, each in answers.items() if np.isfinite(each.scores).all()}
    kinds: dict[str, Callable[..., Iterator[tuple[str, bytes]]]] = {
        "binary": _binary,
        "multiclass": _multiclass,
        "regression": _regression,
    }
    drawn = dict(kinds[first.task](finite, facts)) if next(iter(answers)) in finite else {}
    overall = facts["metrics"].get(metric)
    if facts.get("over_time"):
        drawn["By batch"] = plots.by_batch(facts["over_time"], metric, overall=overall)
    if facts.get("importance"):
        drawn["Feature importance"] = plots.importance(facts["importance"], metric)
    if named := _named(facts):
        drawn["Slices"] = plots.slices(named, metric, overall=overall)
    return drawn


def called(where: Mapping[str, str]) -> str:
    """A found slice in words."""
    return " and ".join(f"{column} {value}" for column, value in where.items())


def _named(facts: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [(called(part["where"]), part) for part in facts.get("found_slices", {}).get("slices", ())]
    by_column = [(f"{part['column']} {part['value']}", part) for part in facts.get("slices", ())]
    return [*found[: SLICES // 2], *by_column[: SLICES - min(len(found), SLICES // 2)]]


def _binary(answers: Mapping[str, Answers], facts: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    first = next(iter(answers.values()))
    truth = binary_target(first.target, first.classes)
    scores = {name: each.scores for name, each in answers.items()}
    chosen = facts.get("threshold", {})
    threshold = chosen.get("value")
    point = (chosen.get("recall"), chosen.get("precision"))
    yield "ROC", plots.roc(truth, scores)
    known = (float(point[0]), float(point[1])) if point[0] is not None and point[1] is not None else None
    yield "Precision and recall", plots.precision_recall(truth, scores, point=known)
    yield "Reliability", plots.calibration(truth, scores)
    yield "Scores", plots.score_histogram(truth, first.scores, name=MODEL, threshold=threshold)
    if threshold is not None:
        negative, positive = first.classes if first.classes is not None else (0, 1)
        names = [str(negative), str(positive)]
        actual, predicted = _words(truth == 1, names), _words(first.scores >= threshold, names)
        title = f"Confusion at the threshold {threshold:.3f}"
        yield "Confusion", plots.confusion(actual, predicted, names, title=title)


def _words(positive: npt.NDArray[np.bool_], names: Sequence[str]) -> npt.NDArray[Any]:
    import numpy as np

    return np.where(positive, names[1], names[0])


def _multiclass(answers: Mapping[str, Answers], facts: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    import numpy as np

    first = next(iter(answers.values()))
    names = np.asarray(list(first.classes) if first.classes is not None else np.unique(first.target))
    for name, each in answers.items():
        predicted = names[each.scores.argmax(axis=1)]
        yield f"Confusion of the {name}", plots.confusion(first.target, predicted, names.tolist(), name=name)
    of_each = {name: said(each) for name, each in answers.items()}
    yield "Reliability", plots.reliability({name: (true, share) for name, (share, true) in of_each.items()})
    yield "Precision and recall", plots.class_precision_recall(first.target, first.scores, names.tolist())


def _regression(answers: Mapping[str, Answers], facts: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    import numpy as np

    target = next(iter(answers.values())).target.astype(np.float64)
    scores = {name: each.scores for name, each in answers.items()}
    yield "Predicted and actual", plots.predicted_actual(target, scores)
    yield "Errors", plots.residuals(target, scores)
