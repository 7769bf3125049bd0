"""What a model says of rows, as people read it: its scores as named columns, and the class that they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ml_platform.training.scoring import Scorer

PREDICTION, PROBABILITY = "prediction", "probability"
EVEN = 0.5
"""The threshold of a binary model for which none was chosen: the likelier class."""


def answer(scorer: Scorer, scores: NDArray[np.float64], threshold: float = EVEN) -> dict[str, NDArray[Any]]:
    """Scores as columns.

    Args:
        scorer: whose.
        scores: what `Scorer.score` returned.
        threshold: a binary model's least probability of the positive class.

    Returns:
        Binary: `probability` of the positive class, and `prediction`, that class from the threshold on. Multiclass:
        `prediction`, the likeliest class, and `probability_<class>` for each. Regression: `prediction`, in the label's
        unit.
    """
    if scorer.task == "regression":
        return {PREDICTION: scores}
    classes = np.asarray(scorer.classes)
    if scorer.task == "binary":
        return {PROBABILITY: scores, PREDICTION: classes[(scores >= threshold).astype(np.intp)]}
    each = {f"{PROBABILITY}_{name}": scores[:, place] for place, name in enumerate(scorer.classes)}
    return {PREDICTION: classes[scores.argmax(axis=1)], **each}
