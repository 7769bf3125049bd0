"""The 181 real days, and the whole data gate for one of them: as the stage has it, without Dagster and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import polars as pl

from benchmarks.gates import bare
from ml_platform.gates.batch import Looked, accepted_of, judge, look
from ml_platform.gates.history import Accepted
from ml_platform.gates.report import GateReport
from ml_platform.pipeline import Pipeline
from ml_platform.pipelines.nyc_flights.data import sample
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.versions.content import table_version

Day = Mapping[str, pl.DataFrame]
"""Rows by source."""

BARE = replace(
    PIPELINE,
    sources=tuple(
        replace(source, schema=f"benchmarks.gates.bare:{source.name.upper()}") for source in PIPELINE.sources
    ),
)
"""The same pipeline where only types are declared."""
assert set(bare.TYPES) == {source.name for source in PIPELINE.sources}


@cache
def days() -> Mapping[str, Day]:
    """Every day's rows by source, in order."""
    found: dict[str, dict[str, pl.DataFrame]] = {}
    for feed, day, table in sample():
        if day is not None:
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            found.setdefault(day, {})[feed] = frame
    return dict(sorted(found.items()))


@dataclass
class Replay:
    """All days in order, each judged by what was accepted before.

    Args:
        reports: by day and source.
        accepted: what was, oldest first.
    """

    reports: dict[str, dict[str, GateReport]]
    accepted: list[tuple[str, Mapping[str, Accepted]]]

    def before(self, day: str, count: int) -> list[tuple[str, Mapping[str, Accepted]]]:
        """The last accepted days before this one."""
        return [one for one in self.accepted if one[0] < day][-count:]

    @property
    def rejected(self) -> list[str]:
        """Days of which any source was rejected."""
        return [day for day, found in self.reports.items() if not all(one.accepted for one in found.values())]


def replay(pipeline: Pipeline, folder: Path, all_days: Mapping[str, Day]) -> Replay:
    """Judge all days in order. What is rejected is not learned from."""
    done = Replay({}, [])
    for day, frames in all_days.items():
        looked = {name: see(pipeline, name, day, frame, folder) for name, frame in frames.items()}
        before = done.before(day, pipeline.batch_gate.history)
        reports, accepted = verdict(pipeline, looked, day, before)
        done.reports[day] = reports
        if all(report.accepted for report in reports.values()):
            done.accepted.append((day, accepted))
    return done


def see(pipeline: Pipeline, source: str, day: str, rows: pl.DataFrame, folder: Path) -> Looked:
    """What these rows say by themselves, landed as Parquet."""
    path = folder / f"{source}.landed.parquet"
    rows.write_parquet(path)
    return look(path, pipeline, pipeline.source(source), batch=day, out=folder, memory_mib=512)


def verdict(
    pipeline: Pipeline, looked: Mapping[str, Looked], day: str, before: Sequence[tuple[str, Mapping[str, Accepted]]]
) -> tuple[dict[str, GateReport], dict[str, Accepted]]:
    """Reports by source, and what later days would be compared with. Judge before looking at the next day's file."""
    contents = {name: table_version(one.file) for name, one in looked.items() if one.file is not None}
    reports = judge(pipeline, looked, batch=day, contents=contents, before=before)
    return reports, accepted_of(looked, contents, day)
