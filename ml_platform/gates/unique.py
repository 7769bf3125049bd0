"""Whether a key occurs twice in a batch of any length, in bounded memory.

Every row's key becomes a 64-bit hash (8 bytes, however wide the key). While they fit they wait in memory; beyond that
they are dealt to files by their first bits, and each file is looked at alone. Equal hashes are only suspects: the rows
behind them are read again and compared as they are, so that two keys of one hash never reject a batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import polars as pl

from ml_platform.gates.judging import Rows
from ml_platform.gates.names import literal

_PART_BITS = 6
_PARTS = 1 << _PART_BITS
MAX_SUSPECTS = 10_000
"""So many hashes that occur again are looked at when only examples are wanted."""

Hashes = npt.NDArray[np.uint64]
Candidates = tuple[pl.DataFrame, Rows]
"""The keys of rows whose hash occurs again, and where these rows stand in the file."""


class KeyWatch:
    """Watches one key over the chunks of a batch.

    Args:
        columns: the key.
        memory_bytes: what the hashes may take.
        folder: where files go when the hashes do not fit.
    """

    def __init__(self, columns: tuple[str, ...], memory_bytes: int, folder: Path) -> None:
        self.columns = columns
        # Sorting takes a copy, and a file must fit just as well.
        self._most = max(1 << 12, memory_bytes // 3 // 8)
        self._folder = folder
        self._waiting: list[Hashes] = []
        self._rows_waiting = 0
        self._spill: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> KeyWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spill is not None:
            self._spill.cleanup()

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next rows. Raises OSError (no space left)."""
        self._waiting.append(hashes(frame, self.columns))
        self._rows_waiting += frame.height
        if self._rows_waiting > self._most:
            self._deal()

    def suspects(self, most: int = MAX_SUSPECTS) -> tuple[Hashes, int]:
        """Hashes that occur more than once (up to `most` of them, sorted), and how many rows have such a hash."""
        if self._spill is None:
            return _repeated(_sorted(self._waiting), most)
        self._deal()
        found, rows = [], 0
        for part in range(_PARTS):
            if (file := Path(self._spill.name) / str(part)).exists():
                # A few runs that are sorted already: merging them is what numpy's stable sort does best.
                values, count = _repeated(np.sort(np.fromfile(file, dtype=np.uint64), kind="stable"), most)
                found.append(values)
                rows += count
        return np.sort(np.concatenate(found))[:most], rows

    def _deal(self) -> None:
        if not self._waiting:
            return
        if self._spill is None:
            self._spill = tempfile.TemporaryDirectory(prefix=".keys-", dir=self._folder)
        waiting = _sorted(self._waiting)
        starts = np.arange(_PARTS, dtype=np.uint64) << np.uint64(64 - _PART_BITS)
        edges = [*np.searchsorted(waiting, starts).tolist(), len(waiting)]
        for part in range(_PARTS):
            if edges[part] < edges[part + 1]:
                with (Path(self._spill.name) / str(part)).open("ab") as file:
                    waiting[edges[part] : edges[part + 1]].tofile(file)
        self._waiting, self._rows_waiting = [], 0


def hashes(frame: pl.DataFrame, columns: Sequence[str]) -> Hashes:
    """A hash of each row's key, the same in every process that has the same polars."""
    # Categories are hashed by their text: their codes depend on what was seen before.
    named = {name for name in columns if isinstance(frame.schema[name], pl.Categorical | pl.Enum)}
    key = frame.select(pl.col(literal(name)).cast(pl.String) if name in named else literal(name) for name in columns)
    return key.hash_rows().to_numpy()


def candidates(frame: pl.DataFrame, rows: Rows, columns: Sequence[str], suspects: Hashes) -> Candidates:
    """The keys of those of the rows that have a suspect's hash."""
    wanted = pl.Series(suspects)
    mask = pl.Series(hashes(frame, columns)).is_in(wanted.implode())
    return frame.select(map(literal, columns)).filter(mask), rows[mask.to_numpy()]


def repeated(found: Iterable[Candidates]) -> Candidates:
    """Those of the candidates whose key does occur again, compared as it is; the rows of a key together."""
    parts = list(found)
    keys, rows = pl.concat([frame for frame, _ in parts]), np.concatenate([rows for _, rows in parts])
    same = keys.is_duplicated()
    keys, rows = keys.filter(same), rows[same.to_numpy()]
    order = keys.select(pl.arg_sort_by([*map(literal, keys.columns), pl.lit(pl.Series(rows))])).to_series()
    return keys[order], rows[order.to_numpy()]


def _sorted(parts: Sequence[Hashes]) -> Hashes:
    """All of them in order; polars sorts on all cores."""
    if not parts:
        return np.empty(0, dtype=np.uint64)
    return pl.Series(np.concatenate(parts)).sort().to_numpy()


def _repeated(found: Hashes, most: int) -> tuple[Hashes, int]:
    same = found[1:] == found[:-1]
    if not same.any():
        return np.empty(0, dtype=np.uint64), 0
    values = np.unique(found[1:][same])
    # A value that occurs n times has n - 1 equal neighbours.
    return values[:most], int(same.sum()) + len(values)
