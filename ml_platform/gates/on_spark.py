"""The data gate on Spark, for a batch that is too large to be judged by one machine; the verdict is the same.

    report = on_spark.check(spark, path, source, memory_mib=512, out=folder / "flights.parquet")

It is the gate of `ml_platform.gates.schema` with two things done elsewhere. Every row is judged by itself in Spark
tasks: each takes a few row groups of the file and runs the very expressions over them that the other engine runs
(polars in Spark's Python workers), so the two cannot differ in what they think of a row. And whether a key occurs twice
is found by a shuffle: tasks give 64-bit hashes, Spark counts them, and the rows behind those that occur again are
compared as they are. The findings are added up on the driver, in the order of the file.

What the driver does itself, streaming within the memory it is given, because it is one file in one order: it writes
the canonical file and the set-aside rows, with the same bytes as the other engine; it takes the profile in that same
pass; and it asks the checks that must see the whole batch. A CSV file, which cannot be cut where rows begin without
reading it, it first rewrites as Parquet of text, beside `out`. The file, and that one, must be at the same path for all
workers, as must the project's modules.
"""

from __future__ import annotations

import functools
import pickle
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from ml_platform.gates.judging import Judge, Mask
from ml_platform.gates.reading import ParquetChunks, Unreadable, place
from ml_platform.gates.schema import Gate, NewProfiler, run
from ml_platform.gates.tally import Tally
from ml_platform.gates.unique import Candidates, Hashes, candidates, hashes
from ml_platform.gates.writing import CanonicalWriter

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from ml_platform.gates.report import GateReport
    from ml_platform.pipeline import Reference, Source

_ROWS = pa.schema([("key", pa.int32()), ("hash", pa.int64()), ("found", pa.binary())])
_SPARK_ROWS = "key int, hash bigint, found binary"
_FOUND = -1
_SIGN = np.int64(np.iinfo(np.int64).min)
"""Spark's numbers have a sign: with the first bit turned, they are in the order of the hashes."""
_SPLITS_A_CORE = 3


def check(
    spark: SparkSession,
    path: Path,
    feed: Source | Reference,
    *,
    memory_mib: int,
    out: Path | None,
    batch: str = "",
    waived: bool = False,
    profiler: NewProfiler | None = None,
) -> GateReport:
    """As `ml_platform.gates.schema.check`, on a Spark session; `memory_mib` is the driver's, and all tasks' together.

    Raises:
        DeclarationError: the schema cannot be used.
        OSError: no space is left to write to.
    """
    return run(functools.partial(_SparkGate, spark), path, feed, memory_mib, out, batch, waived, profiler)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What a task found in its row groups.

    Args:
        split: which part of the file.
        tally: of its rows.
        bad: its bad rows, packed; empty where none is.
        damage: arguments of `Unreadable`, where it cannot be read.
    """

    split: int
    tally: Tally
    bad: bytes
    damage: tuple[Any, ...] | None


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What is done with parts of the file, in a Spark task. The columns of what it gives are `_ROWS`.

    Args:
        path: a Parquet file.
        schema: its name.
        text: whether all its values are text.
        splits: from which row group to which each part goes.
        chunk_bytes: how much to have in memory at once.
        keys: what must be unique.
        among_good: whether only rows that are good otherwise are compared.
        ragged: where rows stand in the landed file that are not in this one.
    """

    path: Path
    schema: str
    text: bool
    splits: list[tuple[int, int]]
    chunk_bytes: int
    keys: tuple[tuple[str, ...], ...]
    among_good: bool
    ragged: list[int]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for split in batch.column(0).to_pylist():
                yield from self.part(split)

    def part(self, split: int) -> Iterator[pa.RecordBatch]:
        """Judge one part: hashes of its keys, and at last what was found."""
        tally, masks, damage = Tally("", ""), list[Mask](), None
        try:
            chunks = ParquetChunks(self.path, self.chunk_bytes, self.splits[split])
            judge, start = Judge(self.schema, chunks.columns, text=self.text), chunks.start
            for raw in chunks:
                judged = judge.judge(raw)
                tally.judged(judged, lambda row, start=start: place(self.ragged, start + row))  # type: ignore[misc]
                frame = judged.good()[0] if self.among_good else judged.frame
                for number, key in enumerate(self.keys):
                    yield _hashed(number, hashes(frame, key))
                masks.append(np.zeros(raw.height, dtype=np.bool_) if judged.bad is None else judged.bad)
                start += raw.height
                tally.rows += raw.height
        except Unreadable as error:
            damage = (error.code, error.message, error.cases, error.failures, error.family)
        bad = np.concatenate([np.zeros(0, dtype=np.bool_), *masks])
        packed = zlib.compress(np.packbits(bad).tobytes(), 1) if bad.any() else b""
        yield _found(_Part(split=split, tally=tally, bad=packed, damage=damage))


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Which rows have one of the suspects' hashes, looked for in a Spark task.

    Args:
        task: how the file is cut.
        key: whose hashes.
        suspects: sorted.
        bad: by part, its bad rows, packed as in `_Part`.
    """

    task: _Task
    key: tuple[str, ...]
    suspects: Hashes
    bad: Mapping[int, bytes]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for split in batch.column(0).to_pylist():
                yield from (_found((split, *some)) for some in self.part(split) if some[0].height)

    def part(self, split: int) -> Iterator[Candidates]:
        """The rows of one part."""
        task = self.task
        chunks = ParquetChunks(task.path, task.chunk_bytes, task.splits[split])
        judge, start, bad = Judge(task.schema, chunks.columns, text=task.text), chunks.start, self.bad.get(split, b"")
        mask = _unpacked(bad, sum(chunks.groups[slice(*task.splits[split])]))
        for raw in chunks:
            rows = np.arange(start, start + raw.height)
            start += raw.height
            if bad:
                good = ~mask[rows - chunks.start]
                raw, rows = raw.filter(pl.Series(good)), rows[good]
            yield candidates(judge.parse(raw), rows, self.key, self.suspects)


class _SparkGate(Gate):
    """One file on its way through the gate, its rows judged and its keys compared on Spark."""

    def __init__(self, spark: SparkSession, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._spark = spark
        context = spark.sparkContext
        if str(context.master).startswith("local") and context.pythonExec == "python3":
            # Whatever python3 is on the path need not have polars; on a cluster, its own settings say which one has.
            context.pythonExec = sys.executable
        self._job: _Task | None = None
        self._found: DataFrame | None = None
        self._packed: dict[int, bytes] = {}

    def _first_pass(self) -> None:
        chunks = self._chunks
        file = chunks if isinstance(chunks, ParquetChunks) else ParquetChunks(self._as_parquet(), self._memory // 8)
        cores = self._spark.sparkContext.defaultParallelism
        self._job = _Task(
            path=file.path,
            schema=self._feed.schema,
            text=self._text,
            splits=_splits(file.groups, cores * _SPLITS_A_CORE),
            chunk_bytes=self._memory // 8 // cores,
            keys=self._plan.keys,
            among_good=bool(self._share),
            ragged=[] if isinstance(chunks, ParquetChunks) else chunks.places.tolist(),
        )
        self._found = self._run(self._job)
        if self._plan.keys:
            self._found = self._found.persist()
            self._cleanup.callback(self._found.unpersist)
        told = self._found.where(f"key = {_FOUND}").select("found").collect()
        for part in sorted((pickle.loads(row.found) for row in told), key=lambda part: part.split):
            if part.damage is not None:
                raise Unreadable(*part.damage)
            self._tally.merge(part.tally)
            if self._share:
                if part.bad:
                    self._packed[part.split] = part.bad
                self._masks.append(_unpacked(part.bad, part.tally.rows))
        self._tally.rows += chunks.ragged

    def _all_rows(self, *, write: bool, profile: bool) -> None:
        self._all = self._writer(self._out) if write else None
        if self._all is None and (self._profiler is None or not profile):
            return
        for raw in self._chunks:
            frame = self._judge.parse(raw)
            if self._all is not None:
                self._all.write(frame)
            if self._profiler is not None and profile:
                self._profiler.add(frame)

    def _suspects(self, key: tuple[str, ...], most: int) -> tuple[Hashes, int]:
        assert self._found is not None
        its = self._found.where(f"key = {self._plan.keys.index(key)}")
        again = its.groupBy("hash").count().where("count > 1")
        rows = again.agg({"count": "sum"}).collect()[0][0]
        if not rows:
            return np.empty(0, dtype=np.uint64), 0
        found = again.select("hash").orderBy("hash").limit(most).toArrow().column(0).to_numpy()
        return (found ^ _SIGN).view(np.uint64), int(rows)

    def _candidates(self, key: tuple[str, ...], suspects: Hashes, bad: Mask) -> Iterator[Candidates]:
        assert self._job is not None
        task = _Comparison(task=self._job, key=key, suspects=suspects, bad=self._packed)
        found = (pickle.loads(row.found) for row in self._run(task).select("found").collect())
        for _, frame, rows in sorted(found, key=lambda some: int(some[2][0])):
            yield frame, rows

    def _run(self, task: _Task | _Comparison) -> DataFrame:
        assert self._job is not None
        count = len(self._job.splits)
        return self._spark.range(0, count, 1, max(1, count)).mapInArrow(task, _SPARK_ROWS)

    def _as_parquet(self) -> Path:
        """The file as Parquet of text, without ragged rows; it goes when the gate is done."""
        folder = self._out.parent if self._out is not None else None
        text = (
            Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix=".text-", dir=folder))) / "rows.parquet"
        )
        with CanonicalWriter(text, self._chunks.columns, self._memory // 8) as writer:
            for raw in self._chunks:
                writer.write(raw)
            writer.finish()
            writer.commit()
        return text


def _splits(groups: list[int], most: int) -> list[tuple[int, int]]:
    """Row groups, given their rows, in at most so many parts of about as many rows."""
    size, splits, first, rows = sum(groups) / most, [], 0, 0
    for index, count in enumerate(groups):
        rows += count
        if rows >= size or index == len(groups) - 1:
            splits.append((first, index + 1))
            first, rows = index + 1, 0
    return splits


def _unpacked(bad: bytes, rows: int) -> Mask:
    if not bad:
        return np.zeros(rows, dtype=np.bool_)
    return np.unpackbits(np.frombuffer(zlib.decompress(bad), np.uint8), count=rows).astype(np.bool_)


def _hashed(key: int, its: Hashes) -> pa.RecordBatch:
    nothing = pa.nulls(len(its), pa.binary())
    return pa.record_batch([np.full(len(its), key, np.int32), its.view(np.int64) ^ _SIGN, nothing], schema=_ROWS)


def _found(what: object) -> pa.RecordBatch:
    return pa.record_batch(
        [pa.array([_FOUND], pa.int32()), pa.nulls(1, pa.int64()), [pickle.dumps(what)]], schema=_ROWS
    )
