"""Is a model worse than the one that it would replace? Both answer for the same rows, and the same draws of them.

Two models are often right on the same rows, so the difference is known far better than either figure: each draw of the
rows measures both, and the interval is of what they differ by (a paired bootstrap; Efron and Tibshirani 1993, chapter
16; for areas under ROC curves pROC's `roc.test(method="bootstrap")`, Robin et al., BMC Bioinformatics 12, 2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.evaluation.declaration import LOWER_IS_BETTER, ModelGate
from ml_platform.evaluation.intervals import Answers, Measured, draws_for, figure, interval, too_few, weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A model beside the champion, by one metric.

    Args:
        metric: which.
        rows: how many rows both answered for.
        model, champion: their figures.
        gain: how much better the model is, in the metric's unit; below 0 it is worse, whatever the metric.
        low, high: interval of the gain; NaN where it has none.
        too_few: why these rows are too few to tell how sure the gain is; "" where they are enough.
        worse: whether it is worse beyond noise, and by more than the tolerance.
    """

    metric: str
    rows: int
    model: float
    champion: float
    gain: float
    low: float
    high: float
    worse: bool
    too_few: str = ""

    @property
    def around(self) -> str:
        """Where the gain lies, in words."""
        if self.too_few:
            return f"too few rows to tell where the gain lies ({self.too_few})"
        if math.isnan(self.low):
            return "where the gain lies is not known"
        return f"the gain lies in [{self.low:.4f}, {self.high:.4f}]"

    def __str__(self) -> str:
        return (
            f"{self.metric} is {self.model:.4f}, the champion's {self.champion:.4f} on the same {self.rows:,} rows: "
            f"{'better' if self.gain >= 0 else 'worse'} by {abs(self.gain):.4f}, {self.around}"
        )


def compare(model: Answers, champion: Answers, metric: str, gate: ModelGate, *, seed: int = 0) -> Comparison:
    """Compare two models' answers for the same rows, in the same order.

    Worse is a model whose gain lies below 0 with its whole interval, and by more than `gate.tolerance` of the
    champion's figure. Where scores are not finite, or a metric is not defined on these rows, nothing can be said, and
    it is not called worse: gates of its own look at that. Nor is it where the rows are `intervals.too_few`.
    """
    import numpy as np

    figures = [figure(each, metric) for each in (model, champion)]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    gain, around, few = sign * (figures[0] - figures[1]), None, too_few(model)
    if not math.isnan(gain) and not few:
        both, rows = [Measured(each, [metric]) for each in (model, champion)], len(model.target)
        draws = weights(rows, draws_for(rows, gate.draws), seed=seed)
        gains = [_gain(both, drawn, metric) for drawn in draws] if all(metric in m.names for m in both) else []
        around = interval(sign * np.concatenate(gains), gate.confidence) if gains else None
    return Comparison(
        metric=metric,
        rows=len(model.target),
        model=figures[0],
        champion=figures[1],
        gain=gain,
        low=around.low if around else math.nan,
        high=around.high if around else math.nan,
        too_few=few,
        worse=around is not None and around.high < 0 and gain < -gate.tolerance * abs(figures[1]),
    )


def _gain(both: list[Measured], drawn: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    model, champion = (measured.of(drawn)[metric] for measured in both)
    return model - champion
