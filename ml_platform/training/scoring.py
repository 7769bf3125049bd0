"""Scoring raw feature rows with a trained model: the same preprocessing, the same module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ml_platform.errors import FeatureError
from ml_platform.training import ensemble, model_folder

_ROWS = 65_536  # scored at once: bounds the activations' memory


class Scorer:
    """A trained model that takes raw feature rows."""

    def __init__(self, model: model_folder.LoadedModel) -> None:
        self._model = model

    @classmethod
    def load(cls, folder: Path | str) -> Scorer:
        """Read a model folder, also an ensemble's. Raises TrainingError where it is not one, is damaged, or cannot be
        rebuilt."""
        return cls(ensemble.load(Path(folder)))

    @property
    def task(self) -> str:
        """Kind of prediction."""
        return self._model.preprocessing.task

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that rows must have."""
        return self._model.preprocessing.columns

    @property
    def numeric(self) -> tuple[str, ...]:
        """Columns of numbers."""
        return tuple(feature.name for feature in self._model.preprocessing.numeric)

    @property
    def categorical(self) -> dict[str, bool]:
        """Columns of categories, and whether they are text."""
        return {feature.name: feature.kind == "string" for feature in self._model.preprocessing.categorical}

    @property
    def classes(self) -> tuple[Any, ...]:
        """The label's classes, sorted; the positive one of a binary label is the last. Empty for regression."""
        return self._model.preprocessing.label.classes

    def score(self, frame: pd.DataFrame | pa.Table) -> NDArray[np.float64]:
        """Score rows: columns by name, in any order; others are ignored. An unknown category counts as missing.

        Returns:
            float64: (rows,) probabilities of the positive class for binary; (rows, classes) for multiclass;
            (rows,) predictions in the label's unit for regression.

        Raises:
            FeatureError: a column is missing, or holds a value that cannot be read; it is named.
        """
        table = self._table(frame)
        parts = [self._score(table.slice(start, _ROWS)) for start in range(0, table.num_rows, _ROWS)]
        if parts:
            return np.concatenate(parts)
        return np.empty((0, len(self.classes)) if self.task == "multiclass" else (0,))

    def _score(self, table: pa.Table) -> NDArray[np.float64]:
        preprocessing = self._model.preprocessing
        encoded = preprocessing.encode(table)
        with torch.inference_mode():
            logits = self._model.module(
                torch.from_numpy(encoded.numeric), torch.from_numpy(encoded.categorical).long()
            ).double()
            if self.task == "multiclass":
                return logits.softmax(1).numpy()  # type: ignore[no-any-return]
            if self.task == "binary":
                return logits.sigmoid().squeeze(1).numpy()  # type: ignore[no-any-return]
        label = preprocessing.label
        return logits.squeeze(1).numpy() * label.std + label.mean  # type: ignore[no-any-return]

    def _table(self, frame: pd.DataFrame | pa.Table) -> pa.Table:
        names = list(frame.columns) if isinstance(frame, pd.DataFrame) else frame.column_names
        if missing := [name for name in self.columns if name not in names]:
            raise FeatureError(
                "A feature column is missing.",
                where=f"column {missing[0]!r}",
                got=f"no {', '.join(missing)}",
                fix=f"give all of {', '.join(self.columns)}",
            )
        if isinstance(frame, pa.Table):
            return frame.select([n for n in names if n in self.columns])
        arrays = []
        for name in self.columns:
            values = frame[name]
            if isinstance(values, pd.DataFrame):
                raise FeatureError("Two columns have one name.", where=f"column {name!r}")
            try:
                arrays.append(pa.Array.from_pandas(values))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
                raise FeatureError(
                    f"The values of column {name!r} are of several types.",
                    where=f"column {name!r}",
                    got=str(error).splitlines()[0],
                ) from error
        return pa.table(arrays, names=list(self.columns))
