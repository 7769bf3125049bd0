"""About a hundredth of a pipeline's data: some batches of both of its split's windows, and of large ones some rows.

The same data gives the same sample. What has landed comes before sample data; of that, what the gate has rejected or a
person has withdrawn is left out, since the pipeline itself does not learn from it either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import LandingError
from ml_platform.landing import REFERENCES, Landing
from ml_platform.naming import load_named
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.verdicts import refused_batches

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.pipeline import Pipeline, Reference, Source
    from ml_platform.settings import Settings

LEAST_TRAIN, LEAST_HOLDOUT = 4, 2
"""Batches that are taken of each window however small the share is, if there are so many: on a single day much is
constant that is not over a year."""
LEAST_ROWS = 250
"""Rows that are kept of a file however small the share is, if there are so many."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a canary runs on.

    Args:
        origin: where the data came from, in words.
        batches: how many there are, without those that are left out.
        left_out: how many were rejected or are withdrawn.
        train, holdout: names of those that were taken.
        rows: how many were landed, by source.
        of_rows: how many the files have that they were taken from, by source.
    """

    origin: str
    batches: int
    train: tuple[str, ...]
    holdout: tuple[str, ...]
    rows: dict[str, int] = field(default_factory=dict)
    of_rows: dict[str, int] = field(default_factory=dict)
    left_out: int = 0

    @property
    def taken(self) -> int:
        """How many batches were taken."""
        return len(self.train) + len(self.holdout)

    @property
    def share(self) -> float:
        """About which share of all rows that is, taking the other batches to be as large."""
        kept = sum(self.rows.values()) / max(1, sum(self.of_rows.values()))
        return kept * self.taken / self.batches


def land_sample(
    pipeline: Pipeline, settings: Settings, to: Landing, share: float = 0.01, batches: int | None = None
) -> Sample:
    """Put a sample of a pipeline's data into another landing place. For the arguments see `run_canary`."""
    there = landing_of(settings)
    found = [set(there.files(pipeline, s.name, s.format, tell=False)) for s in pipeline.sources if s.required]
    landed = set.intersection(*found)
    refused: frozenset[str] = frozenset()
    if landed:
        refused = refused_batches(chain_of(stages_of(pipeline), settings)) & landed
        origin, names = f"what has landed in {settings.landing}", sorted(landed - refused)
    elif pipeline.sample_data is not None:
        origin = f"the sample data, {pipeline.sample_data}"
        names = sorted({batch for _, batch, _ in load_named(pipeline.sample_data)() if batch is not None})
    else:
        raise LandingError(
            "There is no data for a canary.",
            where=f"pipeline {pipeline.name!r}",
            fix="land some batches first, or declare sample_data",
        )
    train, holdout = _chosen(pipeline, names, share, batches, len(refused))
    sample = Sample(origin=origin, batches=len(names), train=train, holdout=holdout, left_out=len(refused))
    fraction = share * len(names) / sample.taken
    chosen = {*train, *holdout}
    with tempfile.TemporaryDirectory(prefix="ml-platform-canary-") as scratch:
        tables = _landed(pipeline, there, chosen, Path(scratch)) if landed else _samples(pipeline, chosen)
        feeds: tuple[Source | Reference, ...] = (*pipeline.sources, *pipeline.references)
        formats = {feed.name: feed.format for feed in feeds}
        for feed, batch, whole in tables:
            if batch is None:
                to.put(pipeline, REFERENCES, feed, whole, formats[feed])
                continue
            rows, kept, data = _cut(whole, fraction, formats[feed])
            to.put(pipeline, feed, batch, data, formats[feed])
            sample.of_rows[feed] = sample.of_rows.get(feed, 0) + rows
            sample.rows[feed] = sample.rows.get(feed, 0) + kept
    return sample


def _chosen(
    pipeline: Pipeline, names: Sequence[str], share: float, batches: int | None, left_out: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Batches to learn from and to hold out, of each window some that are spread evenly over it."""
    train, holdout = pipeline.split.divide(names)
    for window, there in (("train", train), ("holdout", holdout)):
        if not there:
            raise LandingError(
                "There is no batch in one of the split's windows.",
                where=f"pipeline {pipeline.name!r}, {window}",
                got=f"{len(names)} batches"
                + (f", {names[0]} to {names[-1]}" if names else "")
                + (f"; {left_out} more were rejected or withdrawn" if left_out else ""),
                fix="land batches of that window, or change the split",
            )
    count = batches or max(LEAST_TRAIN + LEAST_HOLDOUT, round(share * len(names)))
    held = round(count * len(holdout) / (len(train) + len(holdout)))
    held = min(max(held, min(LEAST_HOLDOUT, count // 2), 1), len(holdout))
    return _spread(train, max(1, count - held)), _spread(holdout, held)


def _spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """So many of the names at even distances, the first and the last among them."""
    last = len(names) - 1
    steps = max(1, min(count, len(names)) - 1)
    return tuple(dict.fromkeys(names[round(place * last / steps)] for place in range(min(count, len(names)))))


def _samples(pipeline: Pipeline, chosen: set[str]) -> Iterator[tuple[str, str | None, pa.Table]]:
    assert pipeline.sample_data is not None
    for feed, batch, table in load_named(pipeline.sample_data)():
        if batch is None or batch in chosen:
            yield feed, batch, table


def _landed(
    pipeline: Pipeline, landing: Landing, chosen: set[str], scratch: Path
) -> Iterator[tuple[str, str | None, Path]]:
    """Copies of landed files, and of all references."""
    copy = scratch / "landed"
    for source in pipeline.sources:
        files = landing.files(pipeline, source.name, source.format, tell=False)
        for batch in sorted(chosen & files.keys()):
            landing.snapshot(files[batch], copy)
            yield source.name, batch, copy
    for reference in pipeline.references:
        files = landing.files(pipeline, REFERENCES, reference.format, tell=False)
        if reference.name in files:
            landing.snapshot(files[reference.name], copy)
            yield reference.name, None, copy


def _cut(whole: Path | pa.Table, fraction: float, format_: str) -> tuple[int, int, Path | bytes | pa.Table]:
    """How many rows a table has, how many are kept, and those, spread evenly over it and written as they were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(whole, Path):
        rows, kept = whole.num_rows, _kept(whole.num_rows, fraction)
        return rows, kept, whole if kept == rows else whole.filter(pa.array(_mask(rows, kept, 0, rows)))
    if format_ == "csv":
        lines = _records(whole)
        rows = len(lines) - 1
        kept = _kept(rows, fraction)
        return rows, kept, b"".join([*lines[:1], *compress(lines[1:], _mask(rows, kept, 0, rows))])
    with pq.ParquetFile(whole) as file:
        rows, kept = file.metadata.num_rows, _kept(file.metadata.num_rows, fraction)
        if kept == rows:
            return rows, kept, whole
        parts, start = [], 0
        for part in file.iter_batches():
            parts.append(part.filter(pa.array(_mask(rows, kept, start, start + part.num_rows))))
            start += part.num_rows
        return rows, kept, pa.Table.from_batches(parts, file.schema_arrow)


def _kept(rows: int, fraction: float) -> int:
    return min(rows, max(LEAST_ROWS, round(rows * fraction)))


def _mask(rows: int, kept: int, start: int, end: int) -> list[bool]:
    """Which of the rows from `start` to `end` are among the `kept` that are spread evenly over all `rows`."""
    return [(row + 1) * kept // rows > row * kept // rows for row in range(start, end)]


def _records(path: Path) -> list[bytes]:
    """The lines of a CSV file, the head first; one with a line break inside quotes is one line."""
    records, open_ = [], b""
    with path.open("rb") as file:
        for line in file:
            open_ += line
            if open_.count(b'"') % 2 == 0:
                records.append(open_)
                open_ = b""
    return [*records, open_] if open_ else records
