"""The file of the rows that a gate sets aside: as they came, with their place in the file and what they break.

`flights.quarantine.parquet` beside `flights.parquet` has the columns

    row     int64, counted from 0 in the order of the landed file
    broke   list of text, such as "in_range(0, 5000) on distance", sorted
    text    of a CSV file: the whole line, where it has more or fewer fields than the header, and else null
    ...     the columns of the landed file, with its own types (of a CSV file: as text); null where there is only `text`

Where the landed file has a column of one of these names, ours gets a "_" behind it. The same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl

from ml_platform.gates.judging import Judged, Rows
from ml_platform.gates.names import literal
from ml_platform.gates.reading import Ragged
from ml_platform.gates.writing import CanonicalWriter


def quarantine_file(out: Path) -> Path:
    """Where the rows that are set aside go, beside the canonical file `out`: `flights.quarantine.parquet`."""
    return out.with_name(f"{out.stem}.quarantine.parquet")


class QuarantineWriter:
    """Takes rows in order; the file appears at `commit`, and leaving the `with` block without it removes all.

    Args:
        out: the canonical file that it goes beside.
        columns: those of the landed file.
        text: whether the landed file is text.
        group_bytes: how much one row group may take in memory.
    """

    def __init__(self, out: Path, columns: Mapping[str, pl.DataType], *, text: bool, group_bytes: int) -> None:
        self._row, self._broke, self._text = (_free(name, columns) for name in ("row", "broke", "text"))
        ours = {self._row: pl.Int64(), self._broke: pl.List(pl.String())} | ({self._text: pl.String()} if text else {})
        self._schema = {**ours, **columns}
        self._writer = CanonicalWriter(quarantine_file(out), self._schema, group_bytes, nanoseconds=True)

    def __enter__(self) -> QuarantineWriter:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, raw: pl.DataFrame, rows: Rows, broke: Sequence[Sequence[str]], ragged: Sequence[Ragged]) -> None:
        """Take the next rows, as they came, and the ragged ones between them. Raises OSError (no space left)."""
        ours = [pl.Series(self._row, rows), pl.Series(self._broke, broke, dtype=pl.List(pl.String))]
        parts = [raw.with_columns(ours)]
        if ragged:
            lines = {
                self._row: [line.row for line in ragged],
                self._broke: [[line.fields] for line in ragged],
                self._text: [line.text for line in ragged],
            }
            parts.append(pl.DataFrame(lines, schema={name: self._schema[name] for name in lines}))
        frame = pl.concat(parts, how="diagonal")
        missing = [pl.lit(None, dtype=type_).alias(n) for n, type_ in self._schema.items() if n not in frame.columns]
        self._writer.write(frame.with_columns(missing).select(map(literal, self._schema)).sort(self._row))

    def finish(self) -> None:
        """Write what waits and the footer."""
        self._writer.finish()

    def commit(self) -> None:
        """Make the file appear. Call `finish` first."""
        self._writer.commit()


def reasons(judged: Judged, rows: Rows, again: Mapping[str, Rows]) -> list[list[str]]:
    """What each row of a chunk breaks.

    Args:
        judged: what was found of the chunk.
        rows: where its rows stand among those of all chunks, ascending.
        again: for each key in words, which rows have one that occurs again, ascending.
    """
    broke: list[list[str]] = [[] for _ in range(judged.rows)]
    for found in judged.found:
        for rule, mask in found.masks:
            reason = f"{rule.check} on {rule.column}" if rule.column else rule.check
            for row in found.place(np.flatnonzero(mask)).tolist():
                broke[row].append(reason)
    for key, its in again.items():
        for row in np.flatnonzero(np.isin(rows, its, assume_unique=True)).tolist():
            broke[row].append(f"unique on {key}")
    return [sorted(row) for row in broke]


def _free(name: str, columns: Mapping[str, pl.DataType]) -> str:
    while name in columns:
        name += "_"
    return name
