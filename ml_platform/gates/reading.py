"""Reads a landed file in chunks of bounded size, and says clearly why where it cannot be read.

Parquet is read by polars in whole row groups where they fit, and streamed by pyarrow where one does not. CSV is read
by pyarrow, every value as text, so that a value that is not of its declared type can be named with its row instead of
stopping the reader; `parse_text` turns text into the declared types.
"""

from __future__ import annotations

import bisect
import csv
import io
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ml_platform.gates.names import literal
from ml_platform.gates.quotes import lost_quote
from ml_platform.gates.report import MAX_CASES, json_safe

_PROBE_ROWS = 4096
_MAX_CHUNK_ROWS = 1 << 19
_MIN_CHUNK_ROWS = 256
_CSV_BLOCK = 1 << 19
_READ_BUFFER = 1 << 16
_DIGITS = 38
"""Of a decimal number of 128 bits."""

Failures = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError, ValueError)
"""What polars and pyarrow raise on bytes that are not what they should be."""


class Unreadable(Exception):
    """The file cannot be read to its end.

    Args:
        code: a reason code.
        message: one sentence.
        cases: what was seen, as a family's cases.
        failures: how many rows are concerned, where that is known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        cases: tuple[Mapping[str, Any], ...] = (),
        failures: int = 0,
        family: str = "readable",
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.cases, self.failures, self.family = code, message, cases, failures, family


@dataclass(frozen=True)
class Ragged:
    """A row of a CSV file that has more or fewer fields than the header: its number, its text, and what is wrong."""

    row: int
    text: str
    fields: str


class ParquetChunks:
    """A Parquet file: its columns (polars types), its row count, and its rows in order, `chunk_bytes` or fewer at once.

    Args:
        path: the file.
        chunk_bytes: how much of it to have in memory at once, as far as its row groups let.
        groups: give only the rows of these row groups, from the first up to the last but one. None: all.

    Raises:
        Unreadable: it is no complete Parquet file, or has a type that cannot be read; or, while iterating, a page is
            damaged.
    """

    def __init__(self, path: Path, chunk_bytes: int, groups: tuple[int, int] | None = None) -> None:
        self.path, self._chunk_bytes = path, chunk_bytes
        _refuse_empty(path)
        try:
            metadata = pq.read_metadata(path)
            names = metadata.schema.to_arrow_schema().names
            _refuse_twice(names)
            self._scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            self.columns: dict[str, pl.DataType] = dict(self._scan.collect_schema())
        except Failures as error:
            _refuse_types(_unreadable_types(path))
            raise Unreadable(
                "not_parquet", f"the file is not a complete Parquet file ({_first_line(error)})"
            ) from error
        _refuse_types({name: str(type_) for name, type_ in self.columns.items() if _too_wide(type_)})
        self.rows: int = metadata.num_rows
        self.groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self._first, self._end = groups or (0, len(self.groups))
        self.start = sum(self.groups[: self._first])
        self.ragged, self.keep_all = 0, False

    def place(self, row: int) -> int:
        """Where a row stands in the file."""
        return row

    def take_ragged(self) -> list[Ragged]:
        """None: every row of a Parquet file has all columns."""
        return []

    def __iter__(self) -> Iterator[pl.DataFrame]:
        start = self.start
        try:
            for frame in self._frames():
                start += frame.height
                yield frame
        except Failures as error:
            raise Unreadable("damaged", f"the file is damaged after row {start:,} ({_first_line(error)})") from error

    def _frames(self) -> Iterator[pl.DataFrame]:
        wanted = sum(self.groups[self._first : self._end])
        if wanted <= _PROBE_ROWS:
            if wanted:
                yield (self._scan if wanted == self.rows else self._scan.slice(self.start, wanted)).collect()
            return
        # polars would take the whole first row group into memory for its first rows.
        probed = next(group for group in range(self._first, self._end) if self.groups[group])
        row_bytes = _row_bytes(next(self._streamed(probed, _PROBE_ROWS)))
        group, start = self._first, self.start
        while group < self._end:
            most = min(_MAX_CHUNK_ROWS, max(_MIN_CHUNK_ROWS, int(self._chunk_bytes / row_bytes)))
            rows = self.groups[group]
            if rows > most:
                # polars decodes a row group from its beginning for every slice of it; pyarrow goes on where it was.
                for frame in self._streamed(group, most):
                    row_bytes = max(row_bytes, _row_bytes(frame))
                    yield frame
                group, start = group + 1, start + rows
                continue
            first, rows = start, 0
            while group < self._end and rows + self.groups[group] <= most:
                rows, group = rows + self.groups[group], group + 1
            if rows:
                start += rows
                frame = self._scan.slice(first, rows).collect()
                row_bytes = max(row_bytes, _row_bytes(frame))
                yield frame

    def _streamed(self, group: int, rows: int) -> Iterator[pl.DataFrame]:
        """One row group, so many rows at once."""
        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=_READ_BUFFER) as file:
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                yield _frame([batch]).cast(self.columns)  # type: ignore[arg-type]


class CsvChunks:
    """A CSV file with a header, UTF-8, comma-separated: columns of text, an empty unquoted field is null.

    Rows with too few or too many fields are not among those it gives; `ragged` counts those met so far, `take_ragged`
    hands out their text.

    Raises:
        Unreadable: no header, not UTF-8, a quote that is never closed; or, while iterating, it is damaged.
    """

    rows: int | None = None

    def __init__(self, path: Path, chunk_bytes: int) -> None:
        self._path, self._chunk_bytes = path, chunk_bytes
        _refuse_empty(path)
        names = _csv_header(path)
        _refuse_twice(names)
        _refuse_lost_quote(path)
        self.columns: dict[str, pl.DataType] = {name: pl.String() for name in names}
        self._places = array("q")
        self._ragged: list[Ragged] = []
        self.keep_all = False

    @property
    def ragged(self) -> int:
        """How many rows were met that have not as many fields as the header."""
        return len(self._places)

    @property
    def places(self) -> npt.NDArray[np.int64]:
        """Where these rows stand in the file."""
        return np.array(self._places, dtype=np.int64)

    def place(self, row: int) -> int:
        """Where a row of the chunks stands in the file, counted with the ragged ones before it."""
        return place(self._places, row)

    def take_ragged(self) -> list[Ragged]:
        """The ragged rows met since this was last called; the first 20 of the file, or with `keep_all` all."""
        taken, self._ragged = self._ragged, []
        return taken

    def __iter__(self) -> Iterator[pl.DataFrame]:
        self._places, self._ragged = array("q"), []

        def keep(row: Any) -> str:
            number = row.number - 2  # the header is row 1 to pyarrow, which counts while it uses one thread
            if self.keep_all or len(self._places) < MAX_CASES:
                fields = f"{row.actual_columns} fields instead of {row.expected_columns}"
                self._ragged.append(Ragged(number, row.text, fields))
            self._places.append(number)
            return "skip"

        rows = 0
        try:
            with pyarrow.csv.open_csv(
                self._path,
                read_options=pyarrow.csv.ReadOptions(
                    block_size=max(_CSV_BLOCK, min(self._chunk_bytes // 16, 16 * _CSV_BLOCK)), use_threads=False
                ),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types={name: pa.string() for name in self.columns},
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ) as reader:
                waiting: list[pa.RecordBatch] = []
                for batch in reader:
                    waiting.append(batch)
                    rows += batch.num_rows
                    # The text, its copy for polars and the typed columns are in memory together.
                    if sum(b.nbytes for b in waiting) >= self._chunk_bytes // 8:
                        yield _frame(waiting)
                        waiting = []
                if sum(b.num_rows for b in waiting):
                    yield _frame(waiting)
        except Failures as error:
            code = "not_utf8" if "UTF8" in str(error) or "UTF-8" in str(error) else "damaged"
            message = f"the CSV file cannot be read after row {rows:,} ({_first_line(error)})"
            raise Unreadable(code, message) from error


def place(ragged: Sequence[int], row: int) -> int:
    """Where a row stands in the file, given its number among the rows that are not ragged, and where those stand."""
    # The i-th ragged row has `ragged[i] - i` others before it, which never falls.
    return row + bisect.bisect_right(range(len(ragged)), row, key=lambda index: ragged[index] - index)


def open_chunks(path: Path, format_: str, chunk_bytes: int) -> ParquetChunks | CsvChunks:
    """The file's reader. Raises Unreadable."""
    return ParquetChunks(path, chunk_bytes) if format_ == "parquet" else CsvChunks(path, chunk_bytes)


def parse_text(column: str, type_: pl.DataType) -> pl.Expr:
    """Text as `type_`; null where it is not written as one. Times are ISO 8601, and UTC where they name no offset."""
    text = pl.col(literal(column))
    if isinstance(type_, pl.String):
        return text
    if isinstance(type_, pl.Boolean):
        words = {"true": True, "false": False, "1": True, "0": False}
        return text.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean).alias(column)
    if isinstance(type_, pl.Date):
        return text.str.to_date("%Y-%m-%d", strict=False)
    if isinstance(type_, pl.Time):
        return text.str.to_time("%H:%M:%S%.f", strict=False)
    if isinstance(type_, pl.Datetime):
        spaced = text.str.replace("T", " ", literal=True)
        unit, zone = type_.time_unit, type_.time_zone
        naive = pl.coalesce(
            spaced.str.to_datetime(form, time_unit=unit, strict=False)
            for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
        )
        if zone is None:
            return naive.alias(column)
        offset = spaced.str.replace("Z$", "+00:00").str.to_datetime(
            "%Y-%m-%d %H:%M:%S%.f%#z", time_unit=unit, strict=False
        )
        aware = pl.coalesce(offset, naive.dt.replace_time_zone("UTC"))
        return aware.dt.convert_time_zone(zone).alias(column)
    return text.cast(type_, strict=False)


def _refuse_empty(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Unreadable("missing_file", f"the file cannot be opened ({_first_line(error)})") from error
    if size == 0:
        raise Unreadable("empty_file", "the file has zero bytes")


def _refuse_twice(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        message = f"the file has two columns of one name: {', '.join(twice)}"
        raise Unreadable("duplicate_dataframe_column_labels", message, family="columns")


def _refuse_lost_quote(path: Path) -> None:
    if (lost := lost_quote(path)) is None:
        return
    ends = "before the file ends" if lost.ends is None else f"before another value's quote in line {lost.ends:,}"
    message = f"a quote that opens in line {lost.line:,} is not closed {ends}: {json_safe(lost.text)!r}"
    case = {"row": None, "column": "", "check": f"line {lost.line}", "value": json_safe(lost.text), "record": {}}
    raise Unreadable("unclosed_quote", message, (case,))


def _unreadable_types(path: Path) -> dict[str, str]:
    """Columns of a Parquet file that stand in the way of reading it, with their types; none where all of it does."""
    try:
        return {name: str(type_) for name, type_ in pl.read_parquet_schema(path).items() if _too_wide(type_)}
    except Failures:
        pass  # polars can take no such column; pyarrow may tell which
    try:
        schema = pq.read_schema(path)
    except Failures:
        return {}
    found = {}
    for field in schema:
        try:
            pl.from_arrow(pa.schema([field]).empty_table())
        except Failures:
            found[field.name] = str(field.type)
    return found


def _too_wide(type_: pl.DataType) -> bool:
    """Whether polars or pyarrow knows no such numbers: integers of 128 bits, decimals of more than 38 digits."""
    if isinstance(type_, pl.Struct):
        return any(_too_wide(field.dtype) for field in type_.fields)  # type: ignore[arg-type]
    if isinstance(type_, pl.List | pl.Array):
        return _too_wide(type_.inner)  # type: ignore[arg-type]
    return isinstance(type_, pl.Int128 | pl.UInt128) or (isinstance(type_, pl.Decimal) and type_.precision > _DIGITS)


def _refuse_types(types: Mapping[str, str]) -> None:
    if types:
        said = ", ".join(f"column {name} is of type {type_}" for name, type_ in types.items())
        raise Unreadable("unreadable_type", f"{said}, which cannot be read")


def _csv_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        head = file.read(_CSV_BLOCK)
    try:
        # The block may end inside a character; the header is taken from whole lines.
        text = head[: head.rfind(b"\n") + 1 or None].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8", f"the file is not UTF-8 text ({_first_line(error)})") from error
    if "\0" in text:
        raise Unreadable("not_csv", "the file is not CSV: it holds zero bytes, as binary formats do")
    try:
        names = next(csv.reader(io.StringIO(text), strict=True))
    except (csv.Error, StopIteration) as error:
        raise Unreadable("not_csv", f"the CSV header cannot be read ({_first_line(error)})") from error
    if not names or not all(names):
        raise Unreadable("not_csv", f"the CSV header has columns without a name: {json_safe(','.join(names))!r}")
    return names


def _frame(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches(batches))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _row_bytes(frame: pl.DataFrame) -> float:
    return max(1.0, frame.estimated_size() / max(1, frame.height))


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, as a sentence inside another one wants it."""
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text[:200].rstrip(".")
