"""What can be said without looking at a row: the training label's shares, or its mean. scikit-learn's dummies.

A model that is not surely better than that has learned nothing, however good its figures sound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ml_platform.evaluation.intervals import Answers

if TYPE_CHECKING:
    import numpy.typing as npt


def constant(answers: Answers, learned: npt.NDArray[Any]) -> Answers:
    """The answers of the constant predictor for the rows of `answers`.

    Args:
        answers: of a model; only its task, its rows and its classes matter.
        learned: shape (training rows,), the labels of the training rows, without missing ones.

    Returns:
        The same rows with one score: the share of each class among the training labels, or their mean.
    """
    import numpy as np
    from sklearn.dummy import DummyClassifier, DummyRegressor

    rows = np.zeros((len(learned), 1))
    if answers.task == "regression":
        said = DummyRegressor(strategy="mean").fit(rows, learned.astype(np.float64)).predict([[0]])
        return replace(answers, scores=np.repeat(said, len(answers.target)))
    dummy = DummyClassifier(strategy="prior").fit(rows, learned)
    shares = dict(zip(dummy.classes_.tolist(), dummy.predict_proba([[0]])[0].tolist(), strict=True))
    classes = answers.classes if answers.classes is not None else dummy.classes_.tolist()
    known = np.array([shares.get(value, 0.0) for value in classes])
    if answers.task == "binary":
        return replace(answers, scores=np.full(len(answers.target), known[1]))
    return replace(answers, scores=np.tile(known, (len(answers.target), 1)))
