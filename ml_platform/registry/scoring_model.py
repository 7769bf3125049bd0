"""The registered model as MLflow calls it: raw feature rows in, predictions out. Nothing here is a pickle.

MLflow finds this module by the name that the model carries (its pyfunc flavour's `loader_module`), for
`mlflow.pyfunc.load_model` and for `mlflow models serve`. Both check first that rows have the columns of `signature`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import FeatureError
from ml_platform.registry.threshold import THRESHOLD_FILE, read_threshold
from ml_platform.training.answers import EVEN, PREDICTION, PROBABILITY, answer
from ml_platform.training.scoring import Scorer

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature


class ScoringModel:
    """A `Scorer` that answers with a frame, whose columns `ml_platform.training.answers` describes.

    Args:
        scorer: the model.
        threshold: a binary model's least probability of the positive class.
    """

    def __init__(self, scorer: Scorer, threshold: float = EVEN) -> None:
        self.scorer, self.threshold = scorer, threshold

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Score rows that have at least the feature columns; the answer has their index.

        Raises:
            MlflowException: a column is missing, or holds values that cannot be read; the message names it. A server
                answers 400.
        """
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
        return pd.DataFrame(answer(self.scorer, scores, self.threshold), index=model_input.index)


def _load_pyfunc(path: str) -> ScoringModel:
    """MLflow's entry point. `path` is the model folder that was given as `data_path`, two below the MLflow model."""
    chosen = Path(path).parent.parent / THRESHOLD_FILE
    return ScoringModel(Scorer.load(Path(path)), read_threshold(chosen) if chosen.exists() else EVEN)


def signature(scorer: Scorer) -> ModelSignature:
    """What the model takes and gives.

    Columns are required, and are of the types that the feature job writes: a double for a number, a string for a
    category. MLflow refuses others by name, and casts what comes as JSON. What it cannot tell, such as a whole number
    as category, may be of any type, which it looks at value by value, thirty times slower.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    untyped: Any = AnyType
    inputs: list[Any] = [ColSpec(DataType.double, name) for name in scorer.numeric]
    inputs += [ColSpec(DataType.string if text else untyped(), name) for name, text in scorer.categorical.items()]
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
