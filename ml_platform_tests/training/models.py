"""Models that go wrong, for tests."""

from __future__ import annotations

import os
import signal
import sys
import threading
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
        self.more = nn.Linear(1, 1) if trouble == "unused" else None

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Logits, or trouble."""
        self.step += 1
        logits: Tensor = self.model(numeric, categorical)
        if self.step == 3:
            second = dist.is_initialized() and dist.get_rank() == 1
            if self.trouble == "raise" and second:
                threading.Thread(target=threading.Event().wait).start()  # the interpreter would wait for it for good
                raise ValueError("no such layer")
            if self.trouble == "kill" and second:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "exit" and second:
                sys.exit(0)
            if self.trouble == "vanish" and second:
                sys.stdout.write("the last that ")
                sys.stdout.write("rank 1 says\n")
                os._exit(3)
            if self.trouble == "vanish well" and second:
                os._exit(0)
            if self.trouble == "nan":
                return logits * float("nan")
        if self.trouble == "wait":
            time.sleep(0.5)
        if self.trouble == "slow":
            time.sleep(0.02)
        return logits[:, 0] if self.trouble == "shape" else logits


def troubled(inputs: ModelInputs, *, trouble: str) -> nn.Module:
    """A model in trouble: raise, kill, exit, vanish, vanish well, unused, nan, wait, slow or shape."""
    return Troubled(inputs, trouble)


class Slow(nn.Module):
    """A perceptron that takes its time."""

    def __init__(self, inputs: ModelInputs, seconds: float) -> None:
        super().__init__()
        self.model, self.seconds = mlp(inputs, hidden=(8,), dropout=0.2), seconds

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Logits, later."""
        time.sleep(self.seconds)
        logits: Tensor = self.model(numeric, categorical)
        return logits


def slow(inputs: ModelInputs, *, seconds: float) -> nn.Module:
    """A model each of whose steps takes so many seconds longer."""
    return Slow(inputs, seconds)


def loud(logits: Tensor, target: Tensor) -> Tensor:
    """A loss so large that its gradients are beyond float16 until the scale has been halved for some steps."""
    return 2e3 * nn.functional.binary_cross_entropy_with_logits(logits, target)


def nothing(inputs: ModelInputs) -> object:
    """Not a model."""
    return inputs
