"""A model that says the same of every row can have a passable accuracy. This check is not fooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.evaluation.metrics import binary_target
from ml_platform.pipeline import Task

if TYPE_CHECKING:
    import numpy.typing as npt

_FLAT = 1e-6
"""Spread of the scores, relative to that of a useful model's, below which they count as one value."""


@dataclass(frozen=True, kw_only=True)
class SanityReport:
    """Whether predictions distinguish rows at all. `facts` are numbers for people (spread, share of a class, ...)."""

    passed: bool
    reason: str
    facts: dict[str, float]


def check(
    task: Task, target: npt.ArrayLike, scores: npt.ArrayLike, classes: Sequence[Any] | None = None
) -> SanityReport:
    """Check that predictions are finite, are not constant, and are not all one class.

    A binary model may well never pass 0.5 where positives are rare; it calls a row positive here when its score is
    above the share of positives, so a model all on one side of that is either constant or badly calibrated.

    Args: as `metrics.compute`'s.

    Raises:
        RefusedError: no rows.
    """
    import numpy as np

    truth, found = np.asarray(target), np.asarray(scores, dtype=np.float64)
    if len(found) == 0:
        raise RefusedError("There are no predictions to check.", where="holdout")
    finite = float(np.isfinite(found).mean())
    if finite < 1:
        return SanityReport(
            passed=False, reason=f"{1 - finite:.2%} of the scores are not finite", facts={"finite": finite}
        )
    spread = float(found.std(axis=0).max())
    facts = {"finite": finite, "spread": spread}
    scale = float(truth.astype(np.float64).std()) if task == "regression" else 1.0
    if spread <= _FLAT * scale or spread == 0:
        value = ", ".join(f"{v:.4g}" for v in np.atleast_1d(found[0])[:5])
        return SanityReport(passed=False, reason=f"the model says the same of every row: {value}", facts=facts)
    if task == "regression":
        return SanityReport(passed=True, reason="predictions differ between rows", facts=facts)
    if task == "binary":
        threshold = float(binary_target(truth, classes).mean())
        share = float((found >= threshold).mean())
        facts |= {"threshold": threshold, "share_above_threshold": share}
        if share in (0.0, 1.0) and 0 < threshold < 1:
            side = "above" if share else "below"
            reason = f"every score is {side} the share of positives ({threshold:.4g}): all rows are one class"
            return SanityReport(passed=False, reason=reason, facts=facts)
    else:
        counts = np.bincount(found.argmax(axis=1), minlength=found.shape[1])
        facts |= {"classes_predicted": float((counts > 0).sum()), "largest_share": float(counts.max() / counts.sum())}
        if (counts > 0).sum() == 1:
            only = int(counts.argmax())
            name = classes[only] if classes is not None else only
            return SanityReport(passed=False, reason=f"every row is predicted to be {name!r}", facts=facts)
    return SanityReport(passed=True, reason="predictions differ between rows and between classes", facts=facts)
