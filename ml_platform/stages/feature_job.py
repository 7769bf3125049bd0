"""The feature job: a team's feature function over many batches in one Spark job, checked and cut into batches again.

    files = compute(spark, pipeline, {"2013-01-01": {"flights": path, "weather": path}, ...}, history={},
                    references={"planes": path}, out=scratch)
    files["2013-01-01"]   # Parquet files, without the column `batch`

One call costs a few seconds and about ten milliseconds a batch. Its plan does not grow with the batches, but its list
of files does: call it with some hundred at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import FeatureError, PlatformError
from ml_platform.naming import load_named
from ml_platform.pipeline import BATCH_COLUMN, Pipeline
from ml_platform.stages.feature_checks import check_alone, conform
from ml_platform.stages.feature_files import BatchFiles, cut, write_sorted
from ml_platform.stages.feature_frames import Files, link_references, link_sources, read_references, read_sources

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# What the results depend on. The rest of the session's settings only make it faster or slower.
SQL_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.sources.partitionOverwriteMode": "STATIC",
}

# For one batch: compiling a plan and dividing it into stages costs more than running it.
SMALL_SETTINGS = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.codegen.wholeStage": "false",
}


def compute(
    spark: SparkSession,
    pipeline: Pipeline,
    batches: Mapping[str, Mapping[str, Files]],
    *,
    history: Mapping[str, Sequence[str]],
    references: Mapping[str, Files],
    out: Path,
    targets: Sequence[str] | None = None,
    check_isolation: bool = True,
) -> dict[str, list[Path]]:
    """Compute the features of many batches.

    Args:
        spark: a session on this machine; see `ml_platform.stages.spark`. Its SQL settings are restored afterwards.
        batches: validated Parquet files (any names) by batch and source: those to compute, and those looked back on.
        history: for each batch to compute, the batches before it, nearest first, at most `features.lookback` of them.
        references: validated Parquet files by reference.
        out: a folder for the result, absent or empty.
        targets: the batches to compute; all of `batches` when None.
        check_isolation: with more than one target, compute one of them again alone and compare.

    Returns:
        For every target, its Parquet files under `out`: at least one, also where it has no rows. Their columns are
        the keys, numeric (double), categorical (string) and the label, in declared order, and all may be null.

    Raises:
        FeatureError: the function failed, its result is not what the pipeline declares, or it mixes batches: it fails
            for any batch.
        PlatformError: Spark could not compute the rows. One batch may be to blame; Spark does not say which.
    """
    wanted = sorted(batches if targets is None else targets)
    if not wanted:
        return {}
    function = pipeline.features.function
    inputs, rows = out / "inputs", out / "rows"
    out.mkdir(parents=True, exist_ok=True)
    try:
        source_folders = link_sources(pipeline, batches, targets=wanted, history=history, folder=inputs / "sources")
        reference_folders = link_references(references, inputs / "references")
        with _settings(spark, SQL_SETTINGS):
            frames = read_sources(spark, source_folders, lookback=pipeline.features.lookback)
            tables = read_references(spark, reference_folders)
            result = _call(spark, pipeline, frames, tables)
            with _explained(pipeline, wanted):
                write_sorted(result, rows)
            files = cut(rows, out / "features", wanted=wanted, schema=_schema(result), function=function)
            if check_isolation and len(wanted) > 1:
                batch = _middle(files)
                only = {name: frame.where(frame[BATCH_COLUMN] == batch) for name, frame in frames.items()}
                with _settings(spark, SMALL_SETTINGS):
                    lone = _call(spark, pipeline, only, tables)
                    with _explained(pipeline, [batch]):
                        alone = lone.drop(BATCH_COLUMN).toArrow()
                check_alone(files[batch].paths, alone, batch=batch, function=function)
    finally:
        for folder in (inputs, rows):
            shutil.rmtree(folder, ignore_errors=True)
    return {batch: files[batch].paths for batch in wanted}


def _call(
    spark: SparkSession, pipeline: Pipeline, frames: Mapping[str, DataFrame], references: Mapping[str, DataFrame]
) -> DataFrame:
    function = load_named(pipeline.features.function)
    try:
        result = function(spark, dict(frames), dict(references))
    except PlatformError:
        raise
    except Exception as error:
        raise FeatureError(
            "The feature function failed.",
            where=f"{pipeline.name}, {pipeline.features.function}",
            got=_first_line(error),
            fix="the traceback above says where; try the function on a few rows in its test",
        ) from error
    return conform(result, pipeline)


def _schema(result: DataFrame) -> pa.Schema:
    """The columns of a batch's files; any may be null."""
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    fields = to_arrow_schema(result.drop(BATCH_COLUMN).schema, timezone="UTC")
    return pa.schema([field.with_nullable(True).remove_metadata() for field in fields])


def _middle(files: Mapping[str, BatchFiles]) -> str:
    """A batch to check: not the first or last, where a running total over batches may be right by chance; not a large
    one, where the check would take long; and not an empty one, where there is a choice."""
    filled = [batch for batch in sorted(files) if files[batch].rows] or sorted(files)
    median = sorted(files[batch].rows for batch in filled)[len(filled) // 2]
    usual = [batch for batch in filled if files[batch].rows <= median]
    return usual[len(usual) // 2]


@contextmanager
def _settings(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """SQL settings of the session, for a while."""
    before = {name: spark.conf.get(name, None) for name in settings}
    try:
        for name, value in settings.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, old in before.items():
            if old is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, old)


@contextmanager
def _explained(pipeline: Pipeline, batches: Sequence[str]) -> Iterator[None]:
    """Spark computes late: a value that a function cannot treat fails here, and the error says whose it is."""
    try:
        yield
    except Exception as error:
        shown = repr(batches[0]) if len(batches) == 1 else f"one of {len(batches)} batches from {batches[0]!r}"
        raise PlatformError(
            "Spark could not compute the features.",
            where=f"{pipeline.name}, {pipeline.features.function}, {shown}",
            got=_first_line(error),
            fix="look for a value that the function does not expect: a division by zero, a cast that fails",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
