"""How good a model is on parts of the held-out rows: by carrier, by origin; the worst first.

The mean over all rows hides a part on which the model is bad. Each value of a column is a slice, measured by the same
metric with an interval of its own; what has too few rows to say anything is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.declaration import LOWER_IS_BETTER, ModelGate
from ml_platform.evaluation.intervals import Answers, Interval, figure, intervals

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 40
"""Values of one column that are looked at, those with the most rows."""
DRAWS = 200
"""Draws for each slice: there are many."""
MISSING = "(missing)"


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The held-out rows with one value of one column.

    Args:
        column, value: which; `MISSING` where there is none.
        rows: how many.
        figure: the metric.
        low, high: its interval.
        baseline: the baseline's figure there: a part may be hard for everybody. None where there is none.
        bad: why the slice stands out, or "".
        rejects: whether that keeps the model out of the registry.
    """

    column: str
    value: str
    rows: int
    figure: float
    low: float
    high: float
    baseline: float | None = None
    bad: str = ""
    rejects: bool = False

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.column} {self.value}: {self.figure:.4f} [{self.low:.4f}, {self.high:.4f}] of {self.rows:,} rows"


def slices(
    answers: Answers,
    columns: Mapping[str, pa.ChunkedArray],
    *,
    metric: str,
    overall: Interval | None,
    gate: ModelGate,
    baseline: Answers | None = None,
) -> list[Slice]:
    """Every slice that can be judged, the worst first.

    Args:
        answers: of the model, for all held-out rows.
        columns: by name, values in the order of the rows.
        metric: of the task.
        overall: the metric's interval over all rows.
        gate: how small a slice may be, and which one stands out.
        baseline: another model's answers for the same rows, shown beside.
    """
    import numpy as np

    found: list[Slice] = []
    whole = figure(answers, metric)
    for name, column in columns.items():
        values, codes = codes_of(column)
        counts = np.bincount(codes, minlength=len(values))
        if (counts > 0).sum() < 2:
            continue  # all rows, again
        largest = np.argsort(-counts, kind="stable")[:MOST]
        for code in largest[counts[largest] >= gate.slice_rows].tolist():
            rows = np.flatnonzero(codes == code)
            part = _measured(answers.of(rows), metric, gate)
            if part is None:
                continue
            value, around = part
            beside = figure(baseline.of(rows), metric) if baseline is not None else math.nan
            bad, rejects = _judged(around, overall, whole, metric, gate)
            found.append(
                Slice(
                    column=name,
                    value=values[code],
                    rows=int(counts[code]),
                    figure=value,
                    low=around.low,
                    high=around.high,
                    baseline=None if math.isnan(beside) else beside,
                    bad=bad,
                    rejects=rejects,
                )
            )
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(found, key=lambda s: (not s.rejects, not s.bad, -sign * s.figure, s.column, s.value))


def described(found: Sequence[Slice], limit: int = 3) -> str:
    """The slices that stand out, in words; "" where none does."""
    bad = [slice_ for slice_ in found if slice_.bad]
    more = f"; and {len(bad) - limit} more" if len(bad) > limit else ""
    return "; ".join(f"{slice_}, {slice_.bad}" for slice_ in bad[:limit]) + more


def _measured(answers: Answers, metric: str, gate: ModelGate) -> tuple[float, Interval] | None:
    draws = min(DRAWS, gate.draws)
    around = intervals(answers, draws=draws, confidence=gate.confidence, metrics=[metric]).get(metric)
    value = figure(answers, metric)
    return None if around is None or math.isnan(value) else (value, around)


def _judged(around: Interval, overall: Interval | None, whole: float, metric: str, gate: ModelGate) -> tuple[str, bool]:
    """Why a slice stands out, judged by the better end of its interval; and whether that rejects the model."""
    less = metric in LOWER_IS_BETTER
    best = around.low if less else around.high
    if gate.slice_bound is not None and (best > gate.slice_bound if less else best < gate.slice_bound):
        return f"misses {metric} {'<=' if less else '>='} {gate.slice_bound} in every slice", True
    if overall is None:
        return "", False
    worst, margin = overall.high if less else overall.low, gate.slice_margin * abs(whole)
    if best > worst + margin if less else best < worst - margin:
        return f"worse than all rows together ({whole:.4f}) beyond noise", False
    return "", False


def codes_of(column: pa.ChunkedArray) -> tuple[list[str], Any]:
    """The distinct values as text, and for each row which of them it has; shape (rows,)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.fill_null(pc.cast(column, pa.string()), MISSING)
    encoded = text.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)
