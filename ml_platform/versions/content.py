"""Data versions: a hash of a table's rows that forgets how they are stored.

The rows are a multiset. Each is hashed to 64-bit lanes, and each lane is the sum of its row hashes: the additive
multiset hash of Bellare and Micciancio (AdHash, 1997) and Clarke et al. (MSet-Add-Hash, 2003), with sums over the
integers rather than modulo 2**64, so that a row repeated a million times weakens nothing. The sums, the number of
rows and the schema are sealed with SHA-256.

Forgotten: order of rows and of columns, row groups, files, compression, dictionary encoding, string against
large_string, the unit of a timestamp, -0.0 against 0.0, which NaN. Kept: names, types (int32 is not int64), null
against NaN against zero against the empty string, and how often a row occurs.

The mixing is our own numpy (splitmix64), so the hash is the same on every machine and with every library version. It
guards against accident, not against someone who searches for a collision: bytes are guarded by the store's SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import PlatformError
from ml_platform.versions.fingerprint import short_hash
from ml_platform.versions.rowhash import LANES, canonical_type, hash_rows

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT_VERSION = 1
"""Raise it when the hash of the same rows changes."""

WHOLE_FILE_BYTES = 16 << 20
"""Files up to this size, decoded, are read whole; larger ones are streamed."""
CHUNK_ROWS = 1 << 18
CHUNK_BYTES = 64 << 20
"""Rows and bytes that are hashed together. Bounds the memory: about four times CHUNK_BYTES."""


@dataclass(frozen=True)
class TableContent:
    """The data version of a table, and its number of rows."""

    data_version: str
    rows: int


def table_version(table: pa.Table | Path | Sequence[Path]) -> str:
    """The data version of an Arrow table, or of the rows of some Parquet files together. See `table_content`."""
    return table_content(table).data_version


def table_content(table: pa.Table | Path | Sequence[Path]) -> TableContent:
    """Hash an Arrow table, or the rows of some Parquet files together.

    Raises:
        PlatformError: a file is no Parquet, the files' columns differ, or a type has no canonical form (a union).
    """
    if isinstance(table, Path):
        table = [table]
    if isinstance(table, Sequence):
        return content_versions({"": table})[""]
    sums = _Sums()
    _add_chunk([(sums, piece) for piece in _slices(table)] or [(sums, table)])
    return sums.seal()


def content_versions(files_by_batch: Mapping[str, Sequence[Path]]) -> dict[str, TableContent]:
    """Hash the Parquet files of many batches. Small files are hashed together, large ones streamed.

    Raises:
        PlatformError: as `table_content`.
    """
    sums = {batch: _Sums() for batch in files_by_batch}
    files = [(batch, path) for batch, paths in files_by_batch.items() for path in paths]
    pending: list[tuple[_Sums, pa.Table]] = []
    rows = size = 0
    for batch, table in _read(files):
        if pending and (
            rows + table.num_rows > CHUNK_ROWS or size > CHUNK_BYTES or table.schema != pending[0][1].schema
        ):
            _add_chunk(pending)
            pending, rows, size = [], 0, 0
        pending.append((sums[batch], table))
        rows, size = rows + table.num_rows, size + table.nbytes
    if pending:
        _add_chunk(pending)
    return {batch: each.seal() for batch, each in sums.items()}


# Reading


def _read(files: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, pa.Table]]:
    """Yield (batch, piece) of every file, in order. A few small files are read ahead by other threads."""
    if len(files) < 2:
        for batch, path in files:
            yield from ((batch, piece) for piece in _pieces(path))
        return
    threads = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), 8 * threads):
            some = files[start : start + 8 * threads]
            for (batch, _), pieces in zip(some, pool.map(_pieces, [path for _, path in some]), strict=True):
                yield from ((batch, piece) for piece in pieces)


def _pieces(path: Path) -> Iterable[pa.Table]:
    """The file's rows: at once when small, else a generator that reads row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, pre_buffer=False, memory_map=False)
        meta = file.metadata
        if sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups)) <= WHOLE_FILE_BYTES:
            with file:
                table = file.read(use_threads=False)
            return [table.replace_schema_metadata(None)]
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return _stream(path, file)


def _stream(path: Path, file: Any) -> Iterator[pa.Table]:
    import pyarrow as pa

    try:
        with file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS // 4):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> PlatformError:
    return PlatformError("Not a readable Parquet file.", where=path, got=error, fix="write it again")


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    step = max(1, min(CHUNK_ROWS, CHUNK_BYTES * table.num_rows // max(1, table.nbytes)))
    return (table.slice(start, step) for start in range(0, table.num_rows, step))


# Adding up


@dataclass
class _Sums:
    """What is known of one table so far."""

    schema: list[list[str]] | None = None
    rows: int = 0
    lanes: list[int] = field(default_factory=lambda: [0] * LANES)

    def seal(self) -> TableContent:
        lanes = [f"{lane:x}" for lane in self.lanes]
        version = short_hash({"content": CONTENT_VERSION, "schema": self.schema, "rows": self.rows, "lanes": lanes})
        return TableContent(version, self.rows)


def _add_chunk(pieces: Sequence[tuple[_Sums, pa.Table]]) -> None:
    """Hash the rows of pieces that have one Arrow schema, and add each piece's to its own sums."""
    import numpy as np
    import pyarrow as pa

    schema = sorted([field.name, canonical_type(field.type)] for field in pieces[0][1].schema)
    names = [name for name, _ in schema]
    if len(set(names)) < len(names):
        raise PlatformError("Two columns have one name.", got=sorted({n for n in names if names.count(n) > 1}))
    for sums, piece in pieces:
        if sums.schema not in (None, schema):
            differing = [c for c in [*(sums.schema or []), *schema] if c not in schema or c not in (sums.schema or [])]
            raise PlatformError("The files of one table differ in their columns.", got=differing)
        sums.schema = schema
        sums.rows += piece.num_rows
    held = [(sums, piece) for sums, piece in pieces if piece.num_rows]
    if not held:
        return
    lanes = hash_rows(pa.concat_tables([piece for _, piece in held]))
    starts = np.cumsum([0, *(piece.num_rows for _, piece in held[:-1])])
    for lane, hashes in enumerate(lanes):
        # Exact sums: halves of 32 bits cannot overflow 64 in a chunk.
        high = np.add.reduceat(hashes >> np.uint64(32), starts)
        low = np.add.reduceat(hashes & np.uint64(0xFFFFFFFF), starts)
        for (sums, _), high_sum, low_sum in zip(held, high.tolist(), low.tolist(), strict=True):
            sums.lanes[lane] += (high_sum << 32) + low_sum
