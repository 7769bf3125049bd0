"""What anyone gets from the same features in a few seconds: scikit-learn's histogram gradient boosting.

A network that does not come near it is not worth its trouble, so its metrics stand beside the model's everywhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.errors import RefusedError
from ml_platform.evaluation.frames import read_labelled
from ml_platform.evaluation.metrics import compute
from ml_platform.pipeline import Pipeline

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

MOST_CATEGORIES = 255
"""As many as scikit-learn takes in one column."""
_ROWS_A_THREAD = 200_000


@dataclass(frozen=True, kw_only=True)
class BaselineResult:
    """The baseline's answer on the holdout.

    Args:
        scores: as `metrics.compute` takes them: (rows,) or (rows, classes).
        target: (rows,) the labels, in file order, rows without one left out.
        classes: binary: (negative, positive); multiclass: by column of `scores`; None for a regression.
        metrics: by name.
        seconds: to read, fit and score.
    """

    scores: npt.NDArray[np.float64]
    target: npt.NDArray[Any]
    classes: tuple[Any, ...] | None
    metrics: dict[str, float]
    seconds: float


def fit_and_score(pipeline: Pipeline, train: Sequence[Path], holdout: Sequence[Path], *, seed: int) -> BaselineResult:
    """Fit gradient boosting on `train` and judge it on `holdout`. The same files and seed give the same scores.

    Args:
        pipeline: its features, label and task.
        train: feature Parquet files, oldest first.
        holdout: likewise.
        seed: of the random split that decides when boosting stops.

    Raises:
        RefusedError: no labelled rows, or a training set with one class only.
    """
    started = time.perf_counter()
    learned = read_labelled(pipeline, train, where="baseline, training rows")
    held = read_labelled(pipeline, holdout, where="baseline, holdout rows")
    inputs, held_inputs = _encode(pipeline, learned, held)
    label, target = learned[pipeline.label].to_numpy(), held[pipeline.label].to_numpy()
    classes: tuple[Any, ...] | None = None
    if pipeline.task != "regression":
        classes = _classes(pipeline, learned)
        codes = {value: code for code, value in enumerate(classes)}
        # scikit-learn's own order of classes is that of the codes.
        label = np.array([codes[value] for value in learned[pipeline.label].to_list()])
    scores = _fit(pipeline, inputs, label, held_inputs, seed)
    return BaselineResult(
        scores=scores,
        target=target,
        classes=classes,
        metrics=compute(pipeline.task, target, scores, classes),
        seconds=time.perf_counter() - started,
    )


def _fit(
    pipeline: Pipeline,
    inputs: npt.NDArray[np.float32],
    label: npt.NDArray[Any],
    held_inputs: npt.NDArray[np.float32],
    seed: int,
) -> npt.NDArray[np.float64]:
    """Scores of `held_inputs`. How many threads there are makes no difference to them."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    first = len(pipeline.features.numeric)
    options = {
        "random_state": seed,
        "categorical_features": list(range(first, len(pipeline.features.columns))) or None,
    }
    # With little to do, threads wait for each other at thousands of barriers; on a busy machine, for minutes.
    threads = min(os.cpu_count() or 1, 1 + len(inputs) // _ROWS_A_THREAD)
    with threadpool_limits(threads, user_api="openmp"):
        if pipeline.task == "regression":
            return np.asarray(HistGradientBoostingRegressor(**options).fit(inputs, label).predict(held_inputs))
        scores = HistGradientBoostingClassifier(**options).fit(inputs, label).predict_proba(held_inputs)
    return np.asarray(scores[:, 1] if pipeline.task == "binary" else scores)


def _classes(pipeline: Pipeline, learned: pl.DataFrame) -> tuple[Any, ...]:
    classes = tuple(learned[pipeline.label].unique().sort().to_list())
    if len(classes) < 2 or (pipeline.task == "binary" and len(classes) != 2):
        raise RefusedError(
            f"The training rows cannot teach a {pipeline.task} task.",
            where=f"label {pipeline.label!r}",
            got=f"{len(classes)} classes: {', '.join(map(repr, classes[:10]))}",
            fix="widen the training window, or correct the task",
        )
    return classes


def _encode(
    pipeline: Pipeline, learned: pl.DataFrame, held: pl.DataFrame
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Both frames as float32 matrices of shape (rows, features): numbers, then category codes; NaN is missing.

    Codes are the rank of a category's frequency in the training rows. Categories past MOST_CATEGORIES share the last
    code; one that training never saw has that code too where there is one, or else counts as missing.
    """
    import polars as pl

    frames = [learned, held]
    matrices = [np.empty((len(frame), len(pipeline.features.columns)), dtype=np.float32) for frame in frames]
    for position, name in enumerate(pipeline.features.numeric):
        for frame, matrix in zip(frames, matrices, strict=True):
            matrix[:, position] = frame[name].cast(pl.Float32).to_numpy()
    for position, name in enumerate(pipeline.features.categorical, start=len(pipeline.features.numeric)):
        counts = learned[name].cast(pl.String).drop_nulls().rename("value").value_counts(name="rows")
        ranked = counts.sort(["rows", "value"], descending=[True, False])["value"].to_list()
        rest = float(MOST_CATEGORIES - 1) if len(ranked) > MOST_CATEGORIES else None
        kept = ranked[: MOST_CATEGORIES - 1] if rest is not None else ranked
        codes = {value: float(code) for code, value in enumerate(kept)}
        for frame, matrix in zip(frames, matrices, strict=True):
            text = frame[name].cast(pl.String)
            column = (
                text.replace_strict(codes, default=rest, return_dtype=pl.Float32) if codes else text.cast(pl.Float32)
            )
            # A missing value stays missing; only a value that is there can be among the rest.
            matrix[:, position] = pl.select(pl.when(text.is_not_null()).then(column)).to_series().to_numpy()
    return matrices[0], matrices[1]
