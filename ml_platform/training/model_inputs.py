"""What a model function is told about the data that it will see."""

from __future__ import annotations

from dataclasses import dataclass

from ml_platform.pipeline import Task


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """Shapes of a model's input and output. A model function is `(inputs, **hyperparameters) -> torch.nn.Module`.

    The module's forward takes `numeric`, float32 (rows, numeric_width), about zero mean and unit variance, and
    `categorical`, int64 (rows, len(cardinalities)), and returns float32 logits (rows, outputs).

    Args:
        task: kind of prediction.
        numeric_names: name of each column of `numeric`. A feature with missing values in the training rows has a
            second column, "<name> is missing", 0 or 1.
        categorical_names: name of each column of `categorical`.
        cardinalities: codes of each categorical column: code 0 is a missing or unknown value.
        outputs: width of the logits: 1 for binary and regression, the number of classes for multiclass.
    """

    task: Task
    numeric_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    cardinalities: tuple[int, ...]
    outputs: int

    @property
    def numeric_width(self) -> int:
        """Columns of `numeric`."""
        return len(self.numeric_names)
