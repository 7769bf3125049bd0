"""Whether a key occurs twice in a batch of any length, in bounded memory.

Every row's key becomes a 64-bit hash (8 bytes, however wide the key). While they fit they wait in memory; beyond that
they are dealt to files by their first bits, and each file is looked at alone. Equal hashes are only suspects: the rows
behind them are read again and compared as they are, so that two keys of one hash never reject a batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import polars as pl

_PART_BITS = 6
_PARTS = 1 << _PART_BITS
_MAX_SUSPECTS = 10_000

Hashes = npt.NDArray[np.uint64]


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
        self._waiting.append(self._hashes(frame))
        self._rows_waiting += frame.height
        if self._rows_waiting > self._most:
            self._deal()

    def suspects(self) -> tuple[Hashes, int]:
        """Hashes that occur more than once (up to 10,000 of them, sorted), and how many rows have such a hash."""
        if self._spill is None:
            return _repeated(self._waiting)
        self._deal()
        found, rows = [], 0
        for part in range(_PARTS):
            if (file := Path(self._spill.name) / str(part)).exists():
                values, count = _repeated([np.fromfile(file, dtype=np.uint64)])
                found.append(values)
                rows += count
        return np.sort(np.concatenate(found))[:_MAX_SUSPECTS], rows

    def confirm(self, suspects: Hashes, rows: int, chunks: Iterable[pl.DataFrame]) -> tuple[int, pl.DataFrame]:
        """Compare the suspects' rows as they are, in a second pass over the batch.

        Returns:
            How many rows share their key with another one (exact up to 10,000 suspects; beyond that the count of
            equal hashes, off by less than one row in a million million), and the first such rows with their
            position in a column `row`, the rows of a key together.
        """
        kept, start = [], 0
        wanted = pl.Series(suspects)
        for frame in chunks:
            mask = pl.Series(self._hashes(frame)).is_in(wanted.implode())
            kept.append(frame.select(self.columns).with_row_index("row", offset=start).filter(mask))
            start += frame.height
        suspicious = pl.concat(kept)
        same = suspicious.filter(suspicious.select(self.columns).is_duplicated())
        exact = len(suspects) < _MAX_SUSPECTS
        return (same.height if exact or not same.height else rows), same.sort([*self.columns, "row"])

    def _hashes(self, frame: pl.DataFrame) -> Hashes:
        # Categories are hashed by their text: their codes depend on what was seen before.
        named = {name for name in self.columns if isinstance(frame.schema[name], pl.Categorical | pl.Enum)}
        key = frame.select(pl.col(name).cast(pl.String) if name in named else name for name in self.columns)
        return key.hash_rows().to_numpy()

    def _deal(self) -> None:
        if not self._waiting:
            return
        if self._spill is None:
            self._spill = tempfile.TemporaryDirectory(prefix=".keys-", dir=self._folder)
        hashes = np.sort(np.concatenate(self._waiting))
        starts = np.arange(_PARTS, dtype=np.uint64) << np.uint64(64 - _PART_BITS)
        edges = [*np.searchsorted(hashes, starts).tolist(), len(hashes)]
        for part in range(_PARTS):
            if edges[part] < edges[part + 1]:
                with (Path(self._spill.name) / str(part)).open("ab") as file:
                    hashes[edges[part] : edges[part + 1]].tofile(file)
        self._waiting, self._rows_waiting = [], 0


def _repeated(parts: list[Hashes]) -> tuple[Hashes, int]:
    if not parts:
        return np.empty(0, dtype=np.uint64), 0
    hashes = pl.Series(np.concatenate(parts)).sort().to_numpy()
    same = hashes[1:] == hashes[:-1]
    if not same.any():
        return np.empty(0, dtype=np.uint64), 0
    values = np.unique(hashes[1:][same])
    # A value that occurs n times has n - 1 equal neighbours.
    return values[:_MAX_SUSPECTS], int(same.sum()) + len(values)
