"""Scores the holdout with the trained model, in bounded memory, and keeps every score beside its row's keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.pipeline import BATCH_COLUMN, Pipeline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from ml_platform.training.scoring import Scorer

ROWS = 65_536
"""Rows read, scored and written at a time."""
SCORE = "score"


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What the model said of the holdout.

    Args:
        target: (rows,) labels, in file order, rows without one left out: the same rows as the baseline's.
        scores: (rows,) or (rows, classes), as `metrics.compute` takes them.
        classes: binary: (negative, positive); multiclass: by column of `scores`; None for a regression.
        batches: rows by batch.
        unlabelled: rows that were left out.
        kept: columns that were asked for, by name, in the order of the rows.
    """

    target: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    classes: tuple[Any, ...] | None
    batches: dict[str, int]
    unlabelled: int
    kept: dict[str, pa.ChunkedArray]


def score(
    pipeline: Pipeline,
    scorer: Scorer,
    holdout: Mapping[str, Sequence[Path]],
    *,
    out: Path | None = None,
    keep: Sequence[str] = (),
) -> Predictions:
    """Score every labelled row of the holdout.

    Args:
        pipeline: its keys and label.
        scorer: the trained model.
        holdout: feature Parquet files by batch, in the order in which rows are wanted.
        out: Parquet to write: `batch`, the keys, the label, and `score` (or `score_<class>` for each class).
        keep: features and keys whose values are wanted beside the scores.

    Raises:
        RefusedError: no row has a label.
        FeatureError: a file lacks a column or holds values that the model cannot read.
    """
    import contextlib

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    targets: list[npt.NDArray[Any]] = []
    scores: list[npt.NDArray[np.float64]] = []
    batches: dict[str, int] = {}
    kept: list[pa.Table] = []
    unlabelled = 0
    with contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for batch, rows in _read(pipeline, holdout):
            table = rows.filter(_labelled(rows.column(pipeline.label)))
            unlabelled += rows.num_rows - table.num_rows
            batches[batch] = batches.get(batch, 0) + table.num_rows
            if not table.num_rows:
                continue
            scores.append(scorer.score(table))
            kept.append(table.select(list(keep)))
            targets.append(table.column(pipeline.label).to_numpy())
            if out is not None:
                answer = _answer(pipeline, scorer, batch, table, scores[-1])
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(out, answer.schema, compression="zstd"))
                writer.write_table(answer.cast(writer.schema))
    if not targets:
        raise RefusedError(
            "No row of the holdout has a label.",
            where=f"{pipeline.name}, {len(holdout)} batches",
            got=f"{unlabelled} rows without {pipeline.label!r}",
            fix="let the split's holdout name batches whose labels are known",
        )
    columns = pa.concat_tables(kept)
    return Predictions(
        target=np.concatenate(targets),
        scores=np.concatenate(scores),
        classes=scorer.classes or None,
        batches=batches,
        unlabelled=unlabelled,
        kept={name: columns.column(name) for name in keep},
    )


def _read(pipeline: Pipeline, holdout: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, pa.Table]]:
    """Batch names with up to ROWS rows each, of the columns that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*pipeline.features.columns, *pipeline.features.keys]
    columns += [pipeline.label] if pipeline.label not in columns else []
    for batch, files in holdout.items():
        for path in files:
            with pq.ParquetFile(path) as file:
                for rows in file.iter_batches(batch_size=ROWS, columns=columns):
                    yield batch, pa.Table.from_batches([rows])


def _labelled(label: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a label is there. NaN is missing, as it is for training."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = pc.is_valid(label)
    if pa.types.is_floating(label.type):
        return pc.and_not(there, pc.fill_null(pc.is_nan(label), True))
    return there


def _answer(
    pipeline: Pipeline, scorer: Scorer, batch: str, table: pa.Table, scores: npt.NDArray[np.float64]
) -> pa.Table:
    import pyarrow as pa

    names = [name for name in (*pipeline.features.keys, pipeline.label) if name != BATCH_COLUMN]
    columns: dict[str, Any] = {BATCH_COLUMN: pa.array([batch] * table.num_rows)}
    columns |= {name: table.column(name) for name in dict.fromkeys(names)}
    if scores.ndim == 1:
        columns[SCORE] = scores
    else:
        columns |= {f"{SCORE}_{name}": scores[:, number] for number, name in enumerate(scorer.classes)}
    return pa.table(columns)
