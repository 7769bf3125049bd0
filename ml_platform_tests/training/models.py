"""Models that go wrong, for tests."""

from __future__ import annotations

import os
import signal
import time

import torch.distributed as dist
from torch import Tensor, nn

from ml_platform.training.model_inputs import ModelInputs
from ml_platform.training.models import mlp


class Troubled(nn.Module):
    """Does what `trouble` says at its third step."""

    def __init__(self, inputs: ModelInputs, trouble: str) -> None:
        super().__init__()
        self.model, self.trouble, self.step = mlp(inputs, hidden=(4,)), trouble, 0

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Logits, or trouble."""
        self.step += 1
        logits: Tensor = self.model(numeric, categorical)
        if self.step == 3:
            second = dist.is_initialized() and dist.get_rank() == 1
            if self.trouble == "raise" and second:
                raise ValueError("no such layer")
            if self.trouble == "kill" and second:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "nan":
                return logits * float("nan")
        if self.trouble == "wait":
            time.sleep(0.5)
        if self.trouble == "slow":
            time.sleep(0.02)
        return logits[:, 0] if self.trouble == "shape" else logits


def troubled(inputs: ModelInputs, *, trouble: str) -> nn.Module:
    """A model in trouble: raise, kill, nan, wait, slow or shape."""
    return Troubled(inputs, trouble)


def nothing(inputs: ModelInputs) -> object:
    """Not a model."""
    return inputs
