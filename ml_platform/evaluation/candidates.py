"""Several candidates beside each other, on the same held-out rows: which one is best, and by how much.

The winner is the best of several figures that all have some luck in them, so its own figure is a little too good. How
much luck that may be is told by the interval of each candidate's distance to the winner, a paired bootstrap of the same
draws (`evaluation.champion`): where it holds 0, another holdout might well have chosen another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.declaration import LOWER_IS_BETTER

if TYPE_CHECKING:
    from ml_platform.evaluation.intervals import Answers
    from ml_platform.pipeline import Pipeline


def best(figures: Mapping[str, float], metric: str) -> str:
    """The name of the best figure: of equals the first, and one that is not a number only where none is.

    Args:
        figures: by name, at least one.
        metric: what they measure.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return max(figures, key=lambda name: -math.inf if math.isnan(figures[name]) else sign * figures[name])


def compare(pipeline: Pipeline, answers: Mapping[str, Answers], chosen: str | None) -> tuple[str, list[dict[str, Any]]]:
    """Measure all of them, and choose.

    Args:
        pipeline: its metrics, and how they are looked at.
        answers: of each candidate, by name, for the same rows.
        chosen: which one goes on whatever it is; None for the best.

    Returns:
        Which one goes on; and a record of each: `candidate`, `chosen`, every metric of the task, `low` and `high`
        (interval of the main metric), `gain`, `gain_low` and `gain_high` (how much better it is than the one that goes
        on, with its interval; below 0 it is worse). What cannot be told is None.
    """
    from ml_platform.evaluation import champion, metrics
    from ml_platform.evaluation.intervals import intervals

    metric, gate = pipeline.main_metric, pipeline.model_gate
    found = {name: metrics.compute(a.task, a.target, a.scores, a.classes) for name, a in answers.items()}
    goes_on = best({name: values[metric] for name, values in found.items()}, metric) if chosen is None else chosen
    rows: list[dict[str, Any]] = []
    for name, each in answers.items():
        around = intervals(each, draws=gate.draws, confidence=gate.confidence, metrics=[metric]).get(metric)
        beside = champion.compare(each, answers[goes_on], metric, gate) if name != goes_on else None
        record: dict[str, Any] = {"candidate": name, "chosen": name == goes_on, **found[name]}
        record |= {"low": around.low if around else None, "high": around.high if around else None}
        record |= {
            key: getattr(beside, key.removeprefix("gain_")) if beside else None
            for key in ("gain", "gain_low", "gain_high")
        }
        rows.append({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()})
    return goes_on, rows
