"""Does a model get worse as time goes on? Its metric in each batch of the holdout, in the order of the batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ml_platform.evaluation.declaration import ModelGate
from ml_platform.evaluation.intervals import Answers, figure, intervals

MOST = 366
"""Batches that are looked at, the latest."""
DRAWS = 200
"""Draws for each batch: there may be many."""


def over_time(
    answers: Answers, batches: Mapping[str, int], *, metric: str, gate: ModelGate, baseline: Answers | None = None
) -> list[dict[str, Any]]:
    """A metric by batch, the first batch first.

    Args:
        answers: of the model, rows of one batch beside each other.
        batches: rows by batch, in the order of the rows.
        metric: of the task.
        gate: how sure intervals are.
        baseline: another model's answers for the same rows.

    Returns:
        For each batch: `batch`, `rows`, `figure`, `low`, `high` and `baseline`. None is what is not known, as where
        the batch has one class only.
    """
    import numpy as np

    found: list[dict[str, Any]] = []
    first = 0
    skipped = max(0, len(batches) - MOST)
    for number, (batch, rows) in enumerate(batches.items()):
        part = np.arange(first, first + rows)
        first += rows
        if number < skipped or not rows:
            continue
        draws = min(DRAWS, gate.draws)
        own = answers.of(part)
        around = intervals(own, draws=draws, confidence=gate.confidence, metrics=[metric]).get(metric)
        value, beside = figure(own, metric), figure(baseline.of(part), metric) if baseline is not None else math.nan
        known = not math.isnan(value)
        found.append(
            {
                "batch": batch,
                "rows": rows,
                "figure": value if known else None,
                "low": around.low if around and known else None,
                "high": around.high if around and known else None,
                "baseline": None if math.isnan(beside) else beside,
            }
        )
    return found
