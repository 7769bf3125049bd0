"""The trained model's answer for every held-out row, written as Parquet and kept for whoever asks later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.pipeline import BATCH_COLUMN, Pipeline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scores and labels of all labelled rows, in batch and file order.

    Args:
        target: (rows,) labels.
        scores: float64, (rows,) or (rows, classes), as `metrics.compute` takes them.
        classes: of the label; None for a regression.
    """

    target: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    classes: tuple[Any, ...] | None


def predict(pipeline: Pipeline, model_folder: Path, files: Mapping[str, Sequence[Path]], *, out: Path) -> Predictions:
    """Score every row that has a label, a file at a time, and write the keys, label and score of each to `out`.

    Args:
        pipeline: its features, keys, label and task.
        model_folder: of the trained model.
        files: feature Parquet files by batch.
        out: the Parquet file to write, with a column `batch`.

    Raises:
        RefusedError: no row has a label.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ml_platform.training.scoring import Scorer

    scorer = Scorer.load(model_folder)
    written: list[pa.Table] = []
    targets: list[npt.NDArray[Any]] = []
    scores: list[npt.NDArray[np.float64]] = []
    for batch, paths in files.items():
        for path in paths:
            table = _labelled(pq.read_table(path), pipeline.label)
            if table.num_rows:
                score = scorer.score(table)
                scores.append(score)
                targets.append(table[pipeline.label].to_numpy())
                written.append(_record(pipeline, batch, table, score))
    if not written:
        raise RefusedError("No held-out row has a label.", where=pipeline.name, fix="land batches of the holdout window")
    pq.write_table(pa.concat_tables(written), out, compression="zstd")
    classes = scorer.classes if pipeline.task != "regression" else None
    return Predictions(target=np.concatenate(targets), scores=np.concatenate(scores), classes=classes)


def _labelled(table: pa.Table, label: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    # A label that is not a number is missing, as it is in training.
    nan_is_null = pa.types.is_floating(table[label].type)
    return table.filter(pc.invert(pc.is_null(table[label], nan_is_null=nan_is_null)))


def _record(pipeline: Pipeline, batch: str, table: pa.Table, score: npt.NDArray[np.float64]) -> pa.Table:
    import pyarrow as pa

    kept = table.select([*pipeline.features.keys, pipeline.label])
    shown = pa.array(score) if score.ndim == 1 else pa.FixedSizeListArray.from_arrays(score.ravel(), score.shape[1])
    return kept.add_column(0, BATCH_COLUMN, pa.array([batch] * table.num_rows)).append_column("score", shown)
