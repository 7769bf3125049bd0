"""Which rows there are, which rank has which, and reading them: no row on two ranks, no row left out.

Rows with a label are numbered 0..N-1 through all row groups of all files, in order. Rank r of W has the numbers
[r*N//W, (r+1)*N//W), and reads the row groups that overlap them and no others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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

Gather = Callable[[Any], list[Any]]
"""Give every rank's value to every rank, in rank order."""


class TooFewRowsError(TrainingError):
    """There are fewer rows with a label than processes to learn from them."""


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file, and how many of its rows have a label."""

    path: str
    index: int
    labelled: int


def share(rows: int, rank: int, world: int) -> tuple[int, int]:
    """The interval of row numbers that a rank has: all are of one size, or differ by one."""
    return rank * rows // world, (rank + 1) * rows // world


def survey(job: TrainingJob, rank: int, world: int, gather: Gather) -> tuple[list[RowGroup], pa.Schema]:
    """Count the labelled rows of every row group; each rank counts every W-th file.

    Returns:
        The row groups with labelled rows, in order, and the first file's schema.

    Raises:
        TrainingError: a file cannot be read.
        TooFewRowsError
        FeatureError: a file lacks a column.
    """
    mine = {i: _count(job, path) for i, path in enumerate(job.files) if i % world == rank}
    counted: dict[int, list[int]] = {}
    for part in gather(mine):
        counted.update(part)
    groups = [
        RowGroup(path, index, labelled)
        for i, path in enumerate(job.files)
        for index, labelled in enumerate(counted[i])
        if labelled
    ]
    rows = sum(group.labelled for group in groups)
    if rows < world:
        raise TooFewRowsError(
            "There are fewer rows with a label than processes to learn from them.",
            where=f"{job.pipeline}, label {job.label!r}, {len(job.files)} files",
            got=f"{rows} rows, {world} processes",
        )
    with _open(job.files[0]) as file:
        return groups, file.schema_arrow


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
    ends = list(itertools.accumulate(group.labelled for group in groups))
    for group, end in zip(groups, ends, strict=True):
        begin = end - group.labelled
        if end <= start:
            continue
        if begin >= stop:
            return
        with _open(group.path, text=job.categorical) as file:
            place = begin
            for batch in file.iter_batches(chunk_rows, row_groups=[group.index], columns=list(job.columns)):
                table = _labelled(pa.table(batch), job.label)
                first, last = max(start - place, 0), min(stop - place, table.num_rows)
                if first < last:
                    yield table.slice(first, last - first)
                place += table.num_rows
                if place >= stop:
                    return


def _together(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks() if len(tables) > 1 else tables[0]


def _count(job: TrainingJob, path: str) -> list[int]:
    """Labelled rows of each row group of a file."""
    with _open(path) as file:
        if missing := [name for name in job.columns if name not in file.schema_arrow.names]:
            raise FeatureError("A training file lacks a declared column.", where=path, got=", ".join(missing))
        return [
            int(np.count_nonzero(_has_label(file.read_row_group(i, columns=[job.label]).column(0))))
            for i in range(file.num_row_groups)
        ]


def _labelled(table: pa.Table, label: str) -> pa.Table:
    mask = _has_label(table.column(label))
    return table if mask.all() else table.filter(pa.array(mask))


def _has_label(values: pa.ChunkedArray) -> Any:
    valid = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        valid = pc.and_kleene(valid, pc.invert(pc.is_nan(values)))
    return pc.fill_null(valid, False).to_numpy()


def _open(path: str, text: Sequence[str] = ()) -> pq.ParquetFile:
    try:
        # Dictionaries as they are in the file: each distinct text is looked up once. Integers ignore this.
        return pq.ParquetFile(Path(path), read_dictionary=list(text), pre_buffer=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise TrainingError(
            "A training file cannot be read.",
            where=path,
            got=str(error).splitlines()[0],
            fix="check the artifact; if it is damaged, remove it and the stage will run again",
        ) from error
