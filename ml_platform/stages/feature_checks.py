"""Is what a feature function returned what the pipeline declares, and does it keep batches apart?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import FeatureError
from ml_platform.pipeline import BATCH_COLUMN, Pipeline

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

TOLERANCE = 1e-9
"""Relative difference up to which two floats count as equal: a sum in another order differs in the last digits."""


def conform(result: Any, pipeline: Pipeline) -> DataFrame:
    """The result's declared columns in declared order, in the types that the platform stores.

    Numeric features, and the label of a binary or regression task, become double (NaN becomes null); categorical
    features, and the label of a multiclass task, become string; keys stay what they are.

    Returns:
        A frame with the columns keys, numeric, categorical, label, batch.

    Raises:
        FeatureError: not a DataFrame, or a column is missing, undeclared, there twice, or of a wrong type.
    """
    from pyspark.sql import DataFrame

    where = pipeline.features.function
    if not isinstance(result, DataFrame):
        raise FeatureError(
            "The feature function must return a Spark DataFrame.", where=where, got=type(result).__name__
        )
    features = pipeline.features
    wanted = [*features.keys, *features.columns, pipeline.label, BATCH_COLUMN]
    wanted = list(dict.fromkeys(wanted))  # a label may also be a key
    _check_names(result.columns, wanted, where)
    types = {field.name: field.dataType for field in result.schema}
    columns = [_converted(name, types[name], pipeline) for name in wanted]
    return result.select(*columns)


def _check_names(names: Sequence[str], wanted: Sequence[str], where: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FeatureError(
            "The feature function returns two columns of one name.",
            where=where,
            got=", ".join(twice),
            fix="drop one after the join, or join with on=[...]",
        )
    missing = [name for name in wanted if name not in names]
    if BATCH_COLUMN in missing:
        raise FeatureError(
            f"The feature function lost the column `{BATCH_COLUMN}`.",
            where=where,
            got=f"columns {', '.join(names)}",
            fix=f"carry `{BATCH_COLUMN}` through every select, and group, join and window by it",
        )
    if missing:
        raise FeatureError(
            "The feature function lacks columns that the pipeline declares.",
            where=where,
            got=f"missing {', '.join(missing)}; it returned {', '.join(names)}",
            fix="return them, or take them out of the declaration",
        )
    if extra := [name for name in names if name not in wanted]:
        raise FeatureError(
            "The feature function returns columns that the pipeline does not declare.",
            where=where,
            got=", ".join(extra),
            fix="declare them as numeric, categorical or keys, or end the function with a select of what is declared",
        )


def _converted(name: str, type_: DataType, pipeline: Pipeline) -> Column:
    from pyspark.sql import functions as F
    from pyspark.sql.types import BooleanType, DoubleType, FloatType, IntegralType, NumericType, StringType

    column = F.col(f"`{name}`")
    features = pipeline.features
    if name == BATCH_COLUMN:
        _check_type(name, type_, (StringType,), "a string", pipeline)
        return column
    is_label = name == pipeline.label
    if name in features.numeric or (is_label and pipeline.task != "multiclass"):
        role = "a number or boolean"
        _check_type(name, type_, (NumericType, BooleanType), role, pipeline)
        double = column if isinstance(type_, DoubleType) else column.cast("double")
        # Missing is null, and nothing else: what is not a number to a float is missing too.
        can_be_nan = isinstance(type_, DoubleType | FloatType)
        return F.nullif(double, F.lit(float("nan"))).alias(name) if can_be_nan else double
    if name in features.categorical or is_label:
        _check_type(name, type_, (StringType, IntegralType, BooleanType), "a string, integer or boolean", pipeline)
        return column if isinstance(type_, StringType) else column.cast("string")
    if type_.typeName() in ("array", "map", "struct", "variant", "binary"):
        _fail_type(name, type_, "a plain value", pipeline)
    return column


def _check_type(name: str, type_: DataType, allowed: tuple[type, ...], words: str, pipeline: Pipeline) -> None:
    if not isinstance(type_, allowed):
        _fail_type(name, type_, words, pipeline)


def _fail_type(name: str, type_: DataType, words: str, pipeline: Pipeline) -> None:
    features = pipeline.features
    role = "the label" if name == pipeline.label else "a key"
    role = "numeric" if name in features.numeric else "categorical" if name in features.categorical else role
    raise FeatureError(
        "A column of the feature function's result has a wrong type.",
        where=f"{features.function}, column {name!r} ({role})",
        got=type_.simpleString(),
        fix=f"make it {words}",
    )


def check_alone(bulk: Sequence[Path], alone: pa.Table, *, batch: str, function: str) -> None:
    """Compare what a batch came to among others with what it comes to by itself; the order of rows does not matter.

    Args:
        bulk: the batch's files as computed together with other batches.
        alone: the same batch computed alone; same columns.

    Raises:
        FeatureError: they differ.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    together = pa.concat_tables([pq.ParquetFile(path).read() for path in bulk])
    if together.num_rows != alone.num_rows:
        _fail_mixed(batch, function, f"{together.num_rows} rows together with others, {alone.num_rows} alone")
    # Exact columns order the rows; floats come last, since two sums of one batch may differ in the last digit.
    names = sorted(together.column_names, key=lambda name: pa.types.is_floating(together.schema.field(name).type))
    order = [(name, "ascending") for name in names]
    together, alone = together.sort_by(order), alone.select(together.column_names).sort_by(order)
    for name in together.column_names:
        differs = _differs(together.column(name), alone.column(name))
        if count := int(differs.sum()):
            row = int(differs.argmax())
            one, other = together.column(name)[row].as_py(), alone.column(name)[row].as_py()
            _fail_mixed(
                batch, function, f"column {name!r} in {count} of {alone.num_rows} rows, such as {one} and alone {other}"
            )


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> NDArray[np.bool_]:
    """For each row, whether two columns differ; null equals null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    missing: NDArray[np.bool_] = np.asarray(left.is_null()) != np.asarray(right.is_null())
    if pa.types.is_floating(left.type):
        a, b = np.asarray(left.fill_null(0.0)), np.asarray(right.fill_null(0.0))
        with np.errstate(invalid="ignore"):
            missing |= np.abs(a - b) > TOLERANCE * np.maximum(np.abs(a), np.abs(b))
    else:
        missing |= np.asarray(pc.fill_null(pc.not_equal(left, right.cast(left.type)), False))
    return missing


def _fail_mixed(batch: str, function: str, difference: str) -> None:
    raise FeatureError(
        "The feature function gives a batch other rows when it is computed together with others than alone.",
        where=f"{function}, batch {batch!r}",
        got=difference,
        fix=f"it mixes batches, or is not deterministic: name `{BATCH_COLUMN}` in every groupBy, window and join of "
        "frames, order windows by columns without ties, and use no random number or current time",
    )
