"""Feature rows as the baseline reads them: the declared columns of many Parquet files, labelled rows only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import RefusedError
from ml_platform.pipeline import Pipeline

if TYPE_CHECKING:
    import polars as pl


def read_labelled(
    pipeline: Pipeline, files: Sequence[Path], *, where: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Read features and label of all files, in file order, without rows whose label is missing.

    NaN counts as missing, as it does in training.

    Args:
        pipeline: whose features and label.
        files: Parquet, one schema.
        where: what the rows are for, named by an error.
        columns: which features; all of them, when None.

    Returns:
        Columns: the features, then the label.

    Raises:
        RefusedError: no file, or no row with a label.
    """
    import polars as pl

    wanted_columns = [*(pipeline.features.columns if columns is None else columns), pipeline.label]
    if not files:
        raise RefusedError("There are no feature files.", where=where, fix="land batches that the split names")
    frame = pl.concat([pl.read_parquet(file, columns=wanted_columns) for file in files], how="vertical_relaxed")
    label = pl.col(pipeline.label)
    wanted = label.is_not_null()
    if frame.schema[pipeline.label].is_float():
        wanted &= label.is_not_nan()
    frame = frame.filter(wanted)
    if frame.is_empty():
        raise RefusedError(
            "No row has a label.",
            where=f"{where}, {len(files)} files",
            got=pipeline.label,
            fix="check the feature function, or wait until the labels are known",
        )
    return frame
