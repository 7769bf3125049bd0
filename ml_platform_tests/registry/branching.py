"""A model whose Python branches on the values of its input, so that torch cannot export it."""

from __future__ import annotations

from torch import Tensor, nn

from ml_platform.training.model_inputs import ModelInputs


class Branching(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1)

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        logits: Tensor = self.layer(numeric)
        return logits * 2 if numeric.sum() > 0 else logits


def build(inputs: ModelInputs) -> nn.Module:
    return Branching(inputs.numeric_width)
