"""Which rows there are, which rank has which, and reading them: no row on two ranks, no row left out.

Rows with a label are numbered 0..N-1 through all row groups of all files, in order. Rank r of W has the numbers
[r*N//W, (r+1)*N//W), and reads the row groups that overlap them and no others.

So a job reads each row group once in an epoch, but for those that a border between two ranks cuts in two: each of the
two reads it and takes its own rows. A file that is not here yet (`TrainingFile.local`) is brought once to each machine
on which a rank reads from it. Streaming deals row groups out anew in every epoch: they are brought when they are first
read on a machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_platform.errors import FeatureError, TrainingError
from ml_platform.training.config import TrainingJob

CHUNK_ROWS = 65_536
"""Rows decoded at once."""
_FETCHERS = 8
"""Files brought here at once."""

Gather = Callable[[Any], list[Any]]
"""Give every rank's value to every rank, in rank order."""


class TooFewRowsError(TrainingError):
    """There are fewer rows with a label than processes to learn from them."""


@dataclass(frozen=True)
class TrainingFile:
    """A file to learn from.

    Args:
        name: for messages.
        local: its local path. Called when it is read, and may bring the file here first.
        counted: labelled rows of each of its row groups, where somebody has counted them before.
        schema: its columns, where they are known before it is read.
    """

    name: str
    local: Callable[[], Path] = field(compare=False)
    counted: tuple[int, ...] | None = None
    schema: pa.Schema | None = None


Find = Callable[[str], TrainingFile]
"""The file that an entry of `TrainingJob.files` stands for."""


def here(path: str) -> TrainingFile:
    """A file that is where its entry says."""
    return TrainingFile(path, lambda: Path(path))


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file, and how many of its rows have a label."""

    file: TrainingFile
    index: int
    labelled: int


def share(rows: int, rank: int, world: int) -> tuple[int, int]:
    """The interval of row numbers that a rank has: all are of one size, or differ by one."""
    return rank * rows // world, (rank + 1) * rows // world


def survey(
    job: TrainingJob, rank: int, world: int, gather: Gather, find: Find = here
) -> tuple[list[RowGroup], pa.Schema]:
    """Count the labelled rows of every row group; each rank counts every W-th file, unless it is counted already.

    Returns:
        The row groups with labelled rows, in order, and the first file's schema.

    Raises:
        TrainingError: a file cannot be read.
        TooFewRowsError
        FeatureError: a file lacks a column.
    """
    files = [find(name) for name in job.files]
    counted = {i: file.counted for i, file in enumerate(files) if file.counted is not None}
    mine = {i: count(job, file) for i, file in enumerate(files) if i not in counted and i % world == rank}
    for part in gather(mine):
        counted.update(part)
    groups = [
        RowGroup(file, index, labelled)
        for i, file in enumerate(files)
        for index, labelled in enumerate(counted[i])
        if labelled
    ]
    rows = sum(group.labelled for group in groups)
    if rows < world:
        raise TooFewRowsError(
            "There are fewer rows with a label than processes to learn from them.",
            where=f"{job.pipeline}, label {job.label!r}, {len(job.files)} files",
            got=f"{rows} rows, {world} processes",
            fix="train with fewer processes, or on more batches",
        )
    return groups, schema_of(files[0])


def schema_of(file: TrainingFile) -> pa.Schema:
    """The columns of a file and their types."""
    if file.schema is not None:
        return file.schema
    with _open(file) as opened:
        return opened.schema_arrow


def bring(groups: Sequence[RowGroup], start: int, stop: int) -> None:
    """Bring the files here that hold the rows numbered [start, stop), several at a time."""
    files = {id(group.file): group.file for group, _ in _overlapping(groups, start, stop)}
    with ThreadPoolExecutor(_FETCHERS) as pool:
        for _ in pool.map(lambda file: file.local(), files.values()):
            pass


def read(
    job: TrainingJob, groups: Sequence[RowGroup], start: int, stop: int, *, chunk_rows: int = CHUNK_ROWS
) -> Iterator[pa.Table]:
    """Read the labelled rows numbered [start, stop) in the order of `groups`.

    Yields:
        Tables of the features and the label, at most `chunk_rows` rows each; small row groups are put together.
    """
    held: list[pa.Table] = []
    size = 0
    for table in _pieces(job, groups, start, stop, chunk_rows):
        if held and (size + table.num_rows > chunk_rows or table.schema != held[0].schema):
            yield _together(held)
            held, size = [], 0
        held.append(table)
        size += table.num_rows
    if held:
        yield _together(held)


def _pieces(job: TrainingJob, groups: Sequence[RowGroup], start: int, stop: int, chunk_rows: int) -> Iterator[pa.Table]:
    for group, begin in _overlapping(groups, start, stop):
        with _open(group.file, text=job.categorical) as file:
            place = begin
            for batch in file.iter_batches(chunk_rows, row_groups=[group.index], columns=list(job.columns)):
                table = _labelled(pa.table(batch), job.label)
                first, last = max(start - place, 0), min(stop - place, table.num_rows)
                if first < last:
                    yield table.slice(first, last - first)
                place += table.num_rows
                if place >= stop:
                    return


def _overlapping(groups: Sequence[RowGroup], start: int, stop: int) -> Iterator[tuple[RowGroup, int]]:
    """Row groups that have rows numbered [start, stop), each with the number of its first row."""
    ends = itertools.accumulate(group.labelled for group in groups)
    for group, end in zip(groups, ends, strict=True):
        if start < end and end - group.labelled < stop:
            yield group, end - group.labelled


def _together(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks() if len(tables) > 1 else tables[0]


def count(job: TrainingJob, file: TrainingFile) -> tuple[int, ...]:
    """Labelled rows of each row group of a file.

    Raises:
        TrainingError: it cannot be read.
        FeatureError: it lacks a column.
    """
    with _open(file) as opened:
        if missing := [name for name in job.columns if name not in opened.schema_arrow.names]:
            raise FeatureError("A training file lacks a declared column.", where=file.name, got=", ".join(missing))
        return tuple(
            int(np.count_nonzero(_has_label(opened.read_row_group(i, columns=[job.label]).column(0))))
            for i in range(opened.num_row_groups)
        )


def _labelled(table: pa.Table, label: str) -> pa.Table:
    mask = _has_label(table.column(label))
    return table if mask.all() else table.filter(pa.array(mask))


def _has_label(values: pa.ChunkedArray) -> Any:
    valid = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        valid = pc.and_kleene(valid, pc.invert(pc.is_nan(values)))
    return pc.fill_null(valid, False).to_numpy()


def _open(file: TrainingFile, text: Sequence[str] = ()) -> pq.ParquetFile:
    path = file.local()
    try:
        # Dictionaries as they are in the file: each distinct text is looked up once. Integers ignore this.
        return pq.ParquetFile(path, read_dictionary=list(text), pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainingError(
            "A training file cannot be read.",
            where=file.name,
            got=str(error).splitlines()[0],
            fix="check the artifact; if it is damaged, remove it and the stage will run again",
        ) from error
