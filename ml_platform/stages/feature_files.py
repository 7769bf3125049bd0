"""From one frame over many batches to Parquet files by batch.

Spark sorts and writes a few files that hold whole batches one after the other; pyarrow cuts them up. Letting Spark open
a file for each batch takes a quarter more processor time over 181 days of flights. Also, what pyarrow writes depends on
the rows alone: the same rows give the same bytes, however Spark shuffled them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import FeatureError
from ml_platform.pipeline import BATCH_COLUMN

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import DataFrame

GROUP_ROWS = 1 << 17
"""Rows of a row group: some tens of MB of features."""
FILE_GROUPS = 16
"""Row groups of a file: a batch of more than two million rows has several files."""


@dataclass
class BatchFiles:
    """The files of one batch, and its rows."""

    paths: list[Path] = field(default_factory=list)
    rows: int = 0


def write_sorted(result: DataFrame, folder: Path) -> None:
    """Compute the frame and write it, whole batches in each file, in an order that its rows alone decide."""
    # What is trained on the features depends on the order of rows, so it must not depend on the number of tasks.
    order = [f"`{name}`" for name in (BATCH_COLUMN, *(n for n in result.columns if n != BATCH_COLUMN))]
    ordered = result.repartition(result[BATCH_COLUMN]).sortWithinPartitions(*order)
    ordered.write.option("compression", "lz4_raw").parquet(str(folder))


def cut(rows: Path, folder: Path, *, wanted: Sequence[str], schema: pa.Schema, function: str) -> dict[str, BatchFiles]:
    """Cut what `write_sorted` wrote into the files of each batch.

    Args:
        rows: its folder.
        folder: where `<batch>/part-00000.parquet`, ... go.
        wanted: the batches; one without rows gets a file without rows.
        schema: columns of the files: those of the frame without `batch`.
        function: whose rows they are, for the error.

    Raises:
        FeatureError: there are rows of another batch.
    """

    def one(path: Path) -> dict[str, BatchFiles]:
        return _cut_file(path, folder, frozenset(wanted), schema, function)

    found: dict[str, BatchFiles] = {}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for part in pool.map(one, sorted(rows.glob("*.parquet"))):
            assert not found.keys() & part.keys(), "a batch in two files"
            found |= part
    for batch in wanted:
        if batch not in found:
            with _Writer(folder / batch, schema) as writer:
                writer.start_file()
            found[batch] = writer.files
    return {batch: found[batch] for batch in wanted}


def _cut_file(
    path: Path, folder: Path, wanted: frozenset[str], schema: pa.Schema, function: str
) -> dict[str, BatchFiles]:
    found: dict[str, BatchFiles] = {}
    writer: _Writer | None = None
    try:
        for batch, piece in _pieces(path):
            if batch not in wanted:
                raise FeatureError(
                    "The feature function returns rows of a batch that it was not given.",
                    where=function,
                    got="null" if batch is None else repr(batch),
                    fix=f"return the column `{BATCH_COLUMN}` of the frames unchanged; a right or full join can make it "
                    "null",
                )
            if batch not in found:
                if writer:
                    writer.close()
                writer = _Writer(folder / batch, schema)
                found[batch] = writer.files
            assert writer is not None
            writer.add(piece.drop_columns([BATCH_COLUMN]).cast(schema))
    finally:
        if writer:
            writer.close()
    return found


def _pieces(path: Path) -> Iterator[tuple[str | None, pa.Table]]:
    """Runs of rows of one batch; a batch may come in several."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for some in file.iter_batches(batch_size=GROUP_ROWS):
            table = pa.Table.from_batches([some])
            runs = pc.run_end_encode(some.column(BATCH_COLUMN))
            start = 0
            for end, batch in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
                yield batch, table.slice(start, end - start)
                start = end


class _Writer:
    """Writes the files of one batch: row groups of equal size, whatever the sizes of the pieces."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True)
        self.files = BatchFiles()
        self._folder, self._schema = folder, schema
        self._file: pq.ParquetWriter | None = None
        self._groups = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_file(self) -> pq.ParquetWriter:
        """End the file and begin the next."""
        import pyarrow.parquet as pq

        if self._file is not None:
            self._file.close()
        path = self._folder / f"part-{len(self.files.paths):05d}.parquet"
        self.files.paths.append(path)
        self._file, self._groups = pq.ParquetWriter(path, self._schema, compression="zstd"), 0
        return self._file

    def add(self, piece: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(piece)
        self._waiting_rows += piece.num_rows
        while self._waiting_rows >= GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Write what waits, and end the file."""
        if self._waiting_rows:
            self._write_group()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_group(self) -> None:
        import pyarrow as pa

        waiting = pa.concat_tables(self._waiting)
        group, rest = waiting.slice(0, GROUP_ROWS), waiting.slice(GROUP_ROWS)
        file = self.start_file() if self._file is None or self._groups == FILE_GROUPS else self._file
        file.write_table(group, row_group_size=GROUP_ROWS)
        self._groups += 1
        self.files.rows += group.num_rows
        self._waiting, self._waiting_rows = [rest], rest.num_rows
