"""Models that show which others are trained at the same moment. They tell through files that hold their
process ids."""

from __future__ import annotations

import os
import time
from pathlib import Path

from torch import nn

from ml_platform.training.model_inputs import ModelInputs
from ml_platform.training.models import mlp

PATIENCE = 300.0
"""Seconds after which it is clear that the other one does not come."""


def meeting(inputs: ModelInputs, *, folder: str, name: str, others: tuple[str, ...] = (), then: str = "") -> nn.Module:
    """A small model that is made only when the processes of the others are there too.

    Args:
        inputs: what any model is told.
        folder: where they meet.
        name: of this one.
        others: whom to wait for.
        then: "raise" to go wrong after all have met.
    """
    draft = Path(folder, f".{name}")
    draft.write_text(str(os.getpid()))
    draft.rename(Path(folder, name))
    deadline = time.monotonic() + PATIENCE
    while absent := [other for other in others if not Path(folder, other).exists()]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} was alone: {', '.join(absent)} did not come")
        time.sleep(0.05)
    if then == "raise":
        raise ValueError(f"{name} has no such layer")
    return mlp(inputs, hidden=(4,))
