"""A model that any pipeline can begin with: embeddings for the categories, then a multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ml_platform.training.model_inputs import ModelInputs


class Mlp(nn.Module):
    """See `mlp`."""

    offsets: Tensor

    def __init__(self, inputs: ModelInputs, hidden: Sequence[int], embedding: int, dropout: float) -> None:
        super().__init__()
        sizes = torch.tensor([0, *inputs.cardinalities[:-1]]) if inputs.cardinalities else torch.zeros(0)
        self.register_buffer("offsets", sizes.long().cumsum(0), persistent=False)
        # One table for all columns: one lookup a step instead of one a column.
        self.embedding = nn.Embedding(sum(inputs.cardinalities), embedding) if inputs.cardinalities else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=0.1)
            with torch.no_grad():
                self.embedding.weight[self.offsets] = 0.0  # code 0 of a column that never lacked a value says nothing
        width = inputs.numeric_width + embedding * len(inputs.cardinalities)
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            width = size
        self.layers = nn.Sequential(*layers, nn.Linear(width, inputs.outputs))

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Logits (rows, outputs) of float32 (rows, numeric_width) and int64 (rows, categories)."""
        if self.embedding is not None:
            embedded = self.embedding(categorical + self.offsets).flatten(1)
            numeric = torch.cat([numeric, embedded], dim=1)
        logits: Tensor = self.layers(numeric)
        return logits


def mlp(
    inputs: ModelInputs, *, hidden: Sequence[int] = (128, 64), embedding: int = 8, dropout: float = 0.0
) -> nn.Module:
    """Build the default model.

    Args:
        inputs: the data's shapes.
        hidden: width of each hidden layer.
        embedding: width of each category's embedding.
        dropout: share of activations dropped while training, 0 to 1.
    """
    return Mlp(inputs, hidden, embedding, dropout)
