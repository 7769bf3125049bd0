"""Mixed precision: forward and loss in a shorter type where that is safe; weights and optimizer stay float32.

    precision = MixedPrecision(recipe.precision, device)
    with precision.shorter():
        loss = loss_of(precision.full(model(...)), target)
    precision.backward(loss)
    precision.step(optimizer)

bfloat16 has float32's range and needs nothing more. float16 has not: what is small would come to nothing, so the loss
is multiplied by a scale that is halved, and the step left out, whenever a gradient is infinite, and doubled when none
was for long (P. Micikevicius et al., "Mixed Precision Training", ICLR 2018). Every rank decides alike, because each
looks at the same averaged gradients.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from ml_platform.pipeline import Precision


class Stateful(Protocol):
    """Something whose state a checkpoint keeps."""

    def state_dict(self) -> dict[str, float | int]:
        """The state, as numbers."""

    def load_state_dict(self, state_dict: dict[str, float | int]) -> None:
        """Put a state in place."""


class MixedPrecision:
    """How one rank computes.

    Args:
        precision: see `Recipe.precision`.
        device: "cpu", or a GPU's name.
    """

    def __init__(self, precision: Precision, device: str) -> None:
        self._kind = torch.device(device).type
        self._type: torch.dtype | None = None if precision == "float32" else getattr(torch, precision)
        self.scaler = torch.amp.GradScaler(self._kind) if precision == "float16" else None

    def shorter(self) -> AbstractContextManager[object]:
        """Within it the shorter type is used; for forward and loss, not for backward."""
        return nullcontext() if self._type is None else torch.autocast(self._kind, self._type)

    def full(self, logits: Tensor) -> Tensor:
        """Logits as a loss expects them: float32."""
        return logits if self._type is None else logits.float()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the weights, unless a scaled gradient was not finite."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
