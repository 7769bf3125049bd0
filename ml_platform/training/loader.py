"""Batches of a rank's rows, as tensors on its device: from memory where they fit, else streamed.

An epoch has the same number of steps on every rank: S = ceil(N / global batch size). A rank's n rows, in that epoch's
order, are cut evenly: step s has the rows [s*n//S, (s+1)*n//S). So every row is seen exactly once an epoch, no rank
waits for another without work, and no batch is thrown away; a step may have a row more on one rank than on another,
and the loop weighs the ranks' means accordingly.

In memory, an epoch's order is a permutation of the rank's rows. Streaming, the epoch permutes the row groups, deals
them out as intervals of row numbers (a row group on a border is shared by two ranks, each reads its own rows of it),
and mixes rows through a buffer that holds as many rows as the memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import torch
from torch import Tensor

from ml_platform.training.config import TrainingJob
from ml_platform.training.plan import CHUNK_ROWS, RowGroup, read, share
from ml_platform.training.preprocessing import Preprocessing
from ml_platform.training.seeding import generator


@dataclass(frozen=True)
class Batch:
    """One step's rows: float32 (rows, numeric), int64 (rows, categories), targets as the loss wants them."""

    numeric: Tensor
    categorical: Tensor
    target: Tensor


class Loader(Protocol):
    """A rank's rows, batch by batch."""

    mode: str

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, `Cuts.steps` of them."""


@dataclass(frozen=True)
class Cuts:
    """How many rows each rank has in each step; known to all without asking."""

    rows: int
    world: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Steps an epoch: at least one, and never so many that a rank would have none."""
        return max(1, min(self.rows // self.world, -(-self.rows // self.batch_size)))

    def bounds(self, rank: int, step: int) -> tuple[int, int]:
        """Where the step begins and ends in the rank's rows."""
        start, stop = share(self.rows, rank, self.world)
        n, steps = stop - start, self.steps
        return step * n // steps, (step + 1) * n // steps

    def weight(self, rank: int, step: int) -> float:
        """What to multiply the rank's mean loss with, so that the mean over ranks is the mean over the step's rows."""
        sizes = [stop - start for start, stop in (self.bounds(r, step) for r in range(self.world))]
        return sizes[rank] * self.world / sum(sizes)


def row_bytes(job: TrainingJob) -> int:
    """What a row takes while it is loaded: as read, as encoded, and what the streaming buffer copies."""
    return 16 * len(job.numeric) + 8 * len(job.categorical) + 16


def make(
    job: TrainingJob,
    groups: Sequence[RowGroup],
    tables: Sequence[pa.Table] | None,
    preprocessing: Preprocessing,
    rank: int,
    world: int,
    device: str,
) -> Loader:
    """A loader of `tables`, the rank's share, or one that streams the row groups where that is None."""
    cuts = Cuts(sum(group.labelled for group in groups), world, job.recipe.batch_size)
    if tables is not None:
        return InMemory(job, tables, preprocessing, cuts, rank, device)
    buffer_rows = job.recipe.memory_mib * 2**20 // (2 * row_bytes(job))
    return Streaming(job, groups, preprocessing, cuts, rank, device, buffer_rows=buffer_rows)


def fits(job: TrainingJob, rows: int, world: int) -> bool:
    """Whether a rank's share of `rows` stays in memory."""
    return -(-rows // world) * row_bytes(job) <= job.recipe.memory_mib * 2**20


class InMemory:
    """All rows of the share as tensors on the device; an epoch indexes them by a permutation."""

    mode = "memory"

    def __init__(
        self,
        job: TrainingJob,
        tables: Sequence[pa.Table],
        preprocessing: Preprocessing,
        cuts: Cuts,
        rank: int,
        device: str,
    ) -> None:
        start, stop = share(cuts.rows, rank, cuts.world)
        inputs = preprocessing.inputs()
        self._seed, self._cuts, self._rank, self._device = job.recipe.seed, cuts, rank, device
        numeric = torch.empty((stop - start, inputs.numeric_width), dtype=torch.float32)
        categorical = torch.empty((stop - start, len(inputs.cardinalities)), dtype=torch.int32)
        targets, place = [], 0
        for table in tables:
            encoded = preprocessing.encode(table)
            numeric[place : place + table.num_rows] = torch.from_numpy(encoded.numeric)
            categorical[place : place + table.num_rows] = torch.from_numpy(encoded.categorical)
            targets.append(torch.from_numpy(preprocessing.encode_label(table)))
            place += table.num_rows
        assert place == stop - start, (place, start, stop)
        self._rows = Batch(numeric.to(device), categorical.to(device), torch.cat(targets).to(device))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """See `Loader`."""
        rows, total = self._rows, len(self._rows.target)
        order = torch.randperm(total, generator=generator(self._seed, "rows", epoch, self._rank)).to(self._device)
        for step in range(self._cuts.steps):
            start, stop = self._cuts.bounds(self._rank, step)
            index = order[start:stop]
            yield Batch(
                rows.numeric.index_select(0, index),
                rows.categorical.index_select(0, index).long(),
                rows.target.index_select(0, index),
            )


class Streaming:
    """Rows read anew each epoch, a chunk ahead, and mixed in a buffer of `buffer_rows`."""

    mode = "streaming"

    def __init__(
        self,
        job: TrainingJob,
        groups: Sequence[RowGroup],
        preprocessing: Preprocessing,
        cuts: Cuts,
        rank: int,
        device: str,
        *,
        buffer_rows: int,
    ) -> None:
        self._job, self._groups, self._preprocessing = job, groups, preprocessing
        self._cuts, self._rank, self._device = cuts, rank, device
        self._buffer_rows = max(buffer_rows, 1)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """See `Loader`."""
        seed = self._job.recipe.seed
        order = torch.randperm(len(self._groups), generator=generator(seed, "row groups", epoch)).tolist()
        chunks = _ahead(self._encoded([self._groups[i] for i in order]))
        mixed = _mix(chunks, self._buffer_rows, generator(seed, "buffer", epoch, self._rank))
        held = next(mixed)
        for step in range(self._cuts.steps):
            start, stop = self._cuts.bounds(self._rank, step)
            while len(held.target) < stop - start:
                held = _concatenate([held, next(mixed)])
            batch, held = _divide(held, stop - start)
            yield Batch(
                batch.numeric.to(self._device, non_blocking=True),
                batch.categorical.to(self._device, non_blocking=True).long(),
                batch.target.to(self._device, non_blocking=True),
            )
        assert len(held.target) == 0
        assert next(mixed, None) is None, "a rank has rows left over"

    def _encoded(self, groups: Sequence[RowGroup]) -> Iterator[Batch]:
        start, stop = share(self._cuts.rows, self._rank, self._cuts.world)
        chunk_rows = max(1024, min(CHUNK_ROWS, self._buffer_rows))
        for table in read(self._job, groups, start, stop, chunk_rows=chunk_rows):
            encoded = self._preprocessing.encode(table)
            yield Batch(
                torch.from_numpy(encoded.numeric),
                torch.from_numpy(encoded.categorical),
                torch.from_numpy(self._preprocessing.encode_label(table)),
            )


def _ahead(chunks: Iterator[Batch]) -> Iterator[Batch]:
    """Read the next chunk while this one is used; an error arises where the chunk would have been used."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        future = pool.submit(next, chunks, None)
        while (chunk := future.result()) is not None:
            future = pool.submit(next, chunks, None)
            yield chunk


def _mix(chunks: Iterator[Batch], buffer_rows: int, random: torch.Generator) -> Iterator[Batch]:
    """Mix rows: fill a buffer, shuffle it, let half of it go, fill it again; at the end let all go."""
    buffer: list[Batch] = []
    size = 0
    for chunk in chunks:
        buffer.append(chunk)
        size += len(chunk.target)
        if size >= buffer_rows:
            out, kept = _divide(_shuffled(buffer, random), -(-size // 2))
            buffer, size = [kept], len(kept.target)
            yield out
    yield _shuffled(buffer, random)


def _shuffled(parts: list[Batch], random: torch.Generator) -> Batch:
    whole = _concatenate(parts)
    order = torch.randperm(len(whole.target), generator=random)
    return Batch(whole.numeric[order], whole.categorical[order], whole.target[order])


def _concatenate(parts: list[Batch]) -> Batch:
    return Batch(*(torch.cat([getattr(p, f) for p in parts]) for f in ("numeric", "categorical", "target")))


def _divide(batch: Batch, rows: int) -> tuple[Batch, Batch]:
    n, c, t = batch.numeric, batch.categorical, batch.target
    return Batch(n[:rows], c[:rows], t[:rows]), Batch(n[rows:], c[rows:], t[rows:])
