"""What a feature function reads: one frame a source over many batches, each row saying which batch it is for.

The store's files have hashes for names, and batches of equal content share one file. So a folder of links gives each
batch its place, as Spark lays out partitions,

    links/flights/batch=2013-01-02/batch_age=0/0.parquet -> .../store/3f/3fa8...
    links/flights/batch=2013-01-02/batch_age=1/0.parquet -> .../store/a0/a07c...   (the day before, for look-back)

and Spark reads `batch` from the folder's name: a constant of each file, with no join, and a plan whose size does not
grow with the number of batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import FeatureError
from ml_platform.pipeline import BATCH_COLUMN, Pipeline

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

AGE_COLUMN = "batch_age"
"""With a look-back: 0 for the rows of the batch itself, 1 for those of the batch before, ..."""

Files = Path | Sequence[Path]


def link_sources(
    pipeline: Pipeline,
    batches: Mapping[str, Mapping[str, Files]],
    *,
    targets: Sequence[str],
    history: Mapping[str, Sequence[str]],
    folder: Path,
) -> dict[str, Path]:
    """Lay links to every file that the targets and their look-back read.

    Args:
        batches: validated Parquet files by batch and source.
        targets: the batches to compute.
        history: for a target, the batches before it, nearest first; at most the pipeline's look-back.
        folder: where the links go.

    Returns:
        The folder of each source.

    Raises:
        FeatureError: a batch lacks a source, or its file is absent.
    """
    lookback = pipeline.features.lookback
    for source in pipeline.sources:
        for target in targets:
            earlier = history.get(target, ())
            assert len(earlier) <= lookback, f"{target} looks back on {len(earlier)} batches, not {lookback}"
            for age, batch in enumerate((target, *earlier)):
                place = folder / source.name / f"{BATCH_COLUMN}={target}"
                _link(_of(batches, batch, source.name), place / f"{AGE_COLUMN}={age}" if lookback else place)
    return {source.name: folder / source.name for source in pipeline.sources}


def link_references(references: Mapping[str, Files], folder: Path) -> dict[str, Path]:
    """Lay links to the files of every reference; returns the folder of each."""
    for name, files in references.items():
        _link(files, folder / name)
    return {name: folder / name for name in references}


def read_sources(spark: SparkSession, folders: Mapping[str, Path], *, lookback: int) -> dict[str, DataFrame]:
    """A frame for each source, with its own columns and `batch`, and `batch_age` where there is a look-back."""
    from pyspark.sql.types import IntegerType, StringType, StructField, StructType

    added = [StructField(BATCH_COLUMN, StringType(), nullable=False)]
    if lookback:
        added.append(StructField(AGE_COLUMN, IntegerType(), nullable=False))
    frames = {}
    for name, folder in folders.items():
        # All files of a source passed one schema, so one footer tells; listing all of them to infer it costs more.
        # Naming the types of `batch` and `batch_age` keeps Spark from reading a batch "20130101" as a number.
        own = _schema(spark, folder, name)
        if taken := sorted({field.name for field in own} & {BATCH_COLUMN, AGE_COLUMN}):
            raise FeatureError(
                "A source has a column that the platform adds.",
                where=f"source {name!r}",
                got=", ".join(taken),
                fix="rename the column in the source's schema",
            )
        frames[name] = spark.read.schema(StructType([*own, *added])).parquet(_pattern(folder))
    return frames


def read_references(spark: SparkSession, folders: Mapping[str, Path]) -> dict[str, DataFrame]:
    """A frame for each reference."""
    frames = {}
    for name, folder in folders.items():
        frames[name] = spark.read.schema(_schema(spark, folder, name)).parquet(_pattern(folder))
    return frames


def _of(batches: Mapping[str, Mapping[str, Files]], batch: str, source: str) -> Files:
    try:
        return batches[batch][source]
    except KeyError as error:
        raise FeatureError(
            "A batch lacks one of its sources.",
            where=f"batch {batch!r}",
            got=f"no files of source {source!r}",
            fix="features are computed once every source of the batch is validated",
        ) from error


def _link(files: Files, folder: Path) -> None:
    paths = [files] if isinstance(files, Path) else list(files)
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        if not path.is_file():
            raise FeatureError("A validated file is not where the store said.", where=path, fix="run the stage again")
        (folder / f"{number}.parquet").symlink_to(path.absolute())


def _schema(spark: SparkSession, folder: Path, name: str) -> StructType:
    """The columns of a feed, from the footer of one of its files."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql.types import StructField, StructType

    file = next(iter(sorted(folder.rglob("*.parquet"))), None)
    if file is None:
        raise FeatureError("A feed has no files.", where=f"{name!r}")
    footer = pq.read_schema(file)
    fine = [f.name for f in footer if pa.types.is_timestamp(f.type) and f.type.unit == "ns"]
    if fine:
        raise FeatureError(
            "Spark cannot read timestamps in nanoseconds.",
            where=f"{name!r}, {file.resolve()}",
            got=", ".join(fine),
            fix="declare them in microseconds in the feed's schema, and land them so",
        )
    # Spark starts a job to read a footer, which takes longer than all else that one batch needs: it is asked only about
    # types that can be read in more than one way.
    known = {f.name: _type(f.type) for f in footer}
    if None in known.values():
        return spark.read.parquet(_pattern(file)).schema
    return StructType([StructField(column, type_) for column, type_ in known.items() if type_ is not None])


def _type(type_: pa.DataType) -> DataType | None:
    """The type as which Spark reads a plain column; None where Spark must be asked."""
    import pyarrow as pa
    from pyspark.sql import types as T

    plain = {
        pa.bool_(): T.BooleanType(),
        pa.int8(): T.ByteType(),
        pa.int16(): T.ShortType(),
        pa.int32(): T.IntegerType(),
        pa.int64(): T.LongType(),
        pa.float32(): T.FloatType(),
        pa.float64(): T.DoubleType(),
        pa.string(): T.StringType(),
        pa.large_string(): T.StringType(),
        pa.date32(): T.DateType(),
    }
    if pa.types.is_timestamp(type_):
        return T.TimestampType() if type_.tz else T.TimestampNTZType()
    return plain.get(type_)


def _pattern(path: Path) -> str:
    """A path as Spark reads it: wildcards in it mean themselves."""
    return "".join(f"\\{c}" if c in "{}[]*?\\" else c for c in str(path))
