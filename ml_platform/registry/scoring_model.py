"""The registered model as MLflow calls it: raw feature rows in, predictions out. Nothing here is a pickle.

MLflow finds this module by the name that the model carries (its pyfunc flavour's `loader_module`), for
`mlflow.pyfunc.load_model` and for `mlflow models serve`. Both check first that rows have the columns of `signature`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import FeatureError
from ml_platform.training.scoring import Scorer

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

PREDICTION, PROBABILITY = "prediction", "probability"


class ScoringModel:
    """A `Scorer` that answers with a frame.

    Binary: `probability` of the positive class, and `prediction`, the likelier class. Multiclass: `prediction`, and
    `probability_<class>` for each class. Regression: `prediction`, in the label's unit.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Score rows that have at least the feature columns; the answer has their index.

        Raises:
            MlflowException: a column is missing, or holds values that cannot be read; the message names it. A server
                answers 400.
        """
        import numpy as np
        import pandas as pd
        from mlflow.exceptions import MlflowException

        if not isinstance(model_input, pd.DataFrame):
            raise MlflowException.invalid_parameter_value(
                f"Rows must be a pandas DataFrame with the columns {', '.join(self.scorer.columns)}; "
                f"got {type(model_input).__name__}."
            )
        try:
            scores = self.scorer.score(model_input)
        except FeatureError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        classes = np.asarray(self.scorer.classes)
        answer: dict[str, Any]
        match self.scorer.task:
            case "binary":
                answer = {PROBABILITY: scores, PREDICTION: classes[(scores >= 0.5).astype(int)]}
            case "multiclass":
                answer = {PREDICTION: classes[scores.argmax(axis=1)]}
                answer |= {f"{PROBABILITY}_{name}": scores[:, i] for i, name in enumerate(self.scorer.classes)}
            case _:
                answer = {PREDICTION: scores}
        return pd.DataFrame(answer, index=model_input.index)


def _load_pyfunc(path: str) -> ScoringModel:
    """MLflow's entry point. `path` is the model folder that was given as `data_path`."""
    return ScoringModel(Scorer.load(Path(path)))


def signature(scorer: Scorer) -> ModelSignature:
    """What the model takes and gives.

    Each feature column is required, and may be of any type. Rows are scored as the feature function returns them, and
    MLflow's types would refuse some of those: whole numbers for a double, a missing one among longs, and for a string
    a whole number, which the feature job casts. The scorer itself checks values, and names the column.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    untyped: Any = AnyType
    inputs: list[Any] = [ColSpec(untyped(), name) for name in scorer.columns]
    predicted = _class_type(scorer.classes) if scorer.classes else DataType.double
    outputs: list[Any] = [ColSpec(predicted, PREDICTION)]
    if scorer.task == "binary":
        outputs.insert(0, ColSpec(DataType.double, PROBABILITY))
    elif scorer.task == "multiclass":
        outputs += [ColSpec(DataType.double, f"{PROBABILITY}_{name}") for name in scorer.classes]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _class_type(classes: Sequence[Any]) -> Any:
    from mlflow.types.schema import DataType

    if all(isinstance(value, bool) for value in classes):
        return DataType.boolean
    return DataType.long if all(isinstance(value, int) for value in classes) else DataType.string
