"""A model with blocks, with buffers that training changes, and with a parameter that no rank has an even share of."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from ml_platform.training.model_inputs import ModelInputs


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) to the same."""
        out: Tensor = x + self.dropout(torch.relu(self.linear(self.norm(x))))
        return out


class Normed(nn.Module):
    """A few blocks between two layers; waits `seconds` at each call."""

    def __init__(self, inputs: ModelInputs, width: int, depth: int, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.begin = nn.Linear(inputs.numeric_width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.end = nn.Linear(width, inputs.outputs)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Logits."""
        time.sleep(self.seconds)
        x = self.begin(numeric)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.end(x)
        return logits


def normed(inputs: ModelInputs, *, width: int = 33, depth: int = 3, seconds: float = 0.0) -> nn.Module:
    """Build it."""
    return Normed(inputs, width, depth, seconds)
