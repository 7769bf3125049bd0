"""Writes Parquet files of rows, canonical: the same rows in the same order give the same bytes.

zstd, row groups of 131,072 rows (fewer where that many would not fit into the memory allowed), no pandas metadata.
Times are kept in microseconds, since Spark cannot read nanoseconds; categories are written as text.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.gates.names import literal

GROUP_ROWS = 1 << 17
_MIN_GROUP_ROWS = 1 << 8
_FEW_ROWS = 1 << 14


class CanonicalWriter:
    """Takes frames in order; `commit` makes the file appear at `out`, leaving the `with` block without it removes all.

    Args:
        out: where the file goes; nothing is there before `commit`.
        columns: names and polars types, in the order to write.
        group_bytes: how much one row group may take in memory.
        partial: what the file is called until then, behind the name of `out`.
        nanoseconds: keep times as fine as they are, in a file that Spark need not read.
    """

    def __init__(
        self,
        out: Path,
        columns: Mapping[str, pl.DataType],
        group_bytes: int,
        *,
        partial: str = ".partial",
        nanoseconds: bool = False,
    ) -> None:
        self._out = out
        self.path = out.with_name(out.name + partial)
        self._names = list(columns)
        self._schema = _stored_schema(tuple(columns.items()), nanoseconds)
        self._writer: pq.ParquetWriter | None = None
        self._group_rows = 0
        self._group_bytes = group_bytes
        self._waiting: list[pl.DataFrame] = []
        self._rows_waiting = 0
        self._committed = False

    def __enter__(self) -> CanonicalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if not self._committed:
            self.path.unlink(missing_ok=True)

    def write(self, frame: pl.DataFrame) -> None:
        """Take the next rows. Raises OSError (no space left)."""
        if not self._group_rows:
            # From the first rows and the memory allowed alone, so that how the file was cut plays no part.
            self._waiting.append(frame)
            self._rows_waiting += frame.height
            if self._rows_waiting < _MIN_GROUP_ROWS:
                return
            frame = self._decide()
        while frame.height:
            taken = frame.head(self._group_rows - self._rows_waiting)
            frame = frame.slice(taken.height)
            self._waiting.append(taken)
            self._rows_waiting += taken.height
            if self._rows_waiting == self._group_rows:
                self._flush()

    def finish(self) -> None:
        """Write what waits and the footer, still under the temporary name `path`."""
        if not self._group_rows and self._rows_waiting:
            frame = self._decide()
            self._waiting, self._rows_waiting = [frame], frame.height
        if self._rows_waiting or self._writer is None:
            self._flush()
        assert self._writer is not None
        self._writer.close()

    def commit(self) -> None:
        """Make the file appear. Call `finish` first."""
        os.replace(self.path, self._out)
        self._committed = True

    def _decide(self) -> pl.DataFrame:
        """Settle how many rows a group has; returns what waited."""
        frame = pl.concat(self._waiting)
        head = frame.head(_MIN_GROUP_ROWS)
        fitting = self._group_bytes / max(1.0, head.estimated_size() / max(1, head.height))
        self._group_rows = GROUP_ROWS
        while self._group_rows > max(fitting, _MIN_GROUP_ROWS):
            self._group_rows //= 2
        self._waiting, self._rows_waiting = [], 0
        return frame

    def _flush(self) -> None:
        frame = pl.concat(self._waiting).select(map(literal, self._names)) if self._waiting else pl.DataFrame()
        self._waiting, self._rows_waiting = [], 0
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self.path,
                self._schema,
                compression="zstd",
                version="2.6",
                use_dictionary=_repetitive(frame) if frame.height else False,
            )
        if frame.height:
            # One chunk a column: page boundaries must not depend on how the rows came.
            table = frame.to_arrow().cast(self._schema).combine_chunks()
            del frame
            self._writer.write_table(table, row_group_size=self._group_rows)


def _repetitive(frame: pl.DataFrame) -> list[str]:
    """Columns worth a dictionary. Trying one on values that are nearly all different costs more than the rest."""
    if frame.height < _FEW_ROWS:
        return frame.columns
    flat = [name for name, type_ in frame.schema.items() if not type_.is_nested()]
    distinct = frame.select(pl.col(literal(name)).n_unique() for name in flat).row(0) if flat else ()
    return [name for name, count in zip(flat, distinct, strict=True) if count <= max(256, frame.height // 8)]


@functools.lru_cache(maxsize=256)
def _stored_schema(columns: tuple[tuple[str, pl.DataType], ...], nanoseconds: bool) -> pa.Schema:
    arrow = pl.DataFrame(schema=dict(columns)).to_arrow().schema
    return pa.schema([(field.name, _stored(field.type, nanoseconds)) for field in arrow])


def _stored(type_: pa.DataType, nanoseconds: bool) -> pa.DataType:
    """The type that is stored for the one polars gives."""
    if pa.types.is_dictionary(type_) or pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_large_binary(type_):
        return pa.binary()
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz) if type_.unit == "ns" and not nanoseconds else type_
    if pa.types.is_large_list(type_) or pa.types.is_list(type_):
        return pa.list_(_stored(type_.value_type, nanoseconds))
    if pa.types.is_struct(type_):
        return pa.struct([(field.name, _stored(field.type, nanoseconds)) for field in type_])
    return type_
