"""The whole data gate for one batch: each source's file by itself, then compared with the accepted history.

    looked = {source.name: look(path, pipeline, source, batch=batch, out=folder, memory_mib=512), ...}
    reports = judge(pipeline, looked, batch=batch, contents=contents, before=history.before(batch, 28))

It is the same for the stage that materializes and for `ml-platform check`, which does not. The two halves are apart so
that the content of valid rows can be hashed for many batches at once in between.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.gates import freshness, kinds, volume
from ml_platform.gates.absent import absent
from ml_platform.gates.history import Accepted
from ml_platform.gates.profile import Profile, Profiler
from ml_platform.gates.report import HISTORY_FAMILIES, FamilyResult, GateReport, describe
from ml_platform.gates.schema import check, quarantine_file
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline, Source


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a source's file says by itself.

    Args:
        report: its families up to `rows`.
        profile: of the rows that are kept, of all rows where none are; None where no row has the declared types.
        file: canonical Parquet of the rows that are kept, None where the batch is rejected.
        quarantine: Parquet of the rows that were set aside, if any were.
    """

    report: GateReport
    profile: Profile | None
    file: Path | None
    quarantine: Path | None = None


def look(
    path: Path | None,
    pipeline: Pipeline,
    source: Source,
    *,
    batch: str,
    out: Path,
    memory_mib: int,
    waived: bool = False,
    check: Callable[..., GateReport] = check,
) -> Looked:
    """Check a file against its schema, write it in canonical form, and take its profile, in one pass.

    Args:
        path: the landed bytes; None where an optional source did not land.
        pipeline: its batches.
        source: whose they are.
        batch: its name.
        out: folder for what is written.
        memory_mib: MiB that this may take.
        waived: whether a person has accepted what the gate rejects: then all rows are kept.
        check: the engine that asks the schema; all come to the same verdict and the same files.

    Raises:
        DeclarationError: the schema cannot be used.
        OSError: no space is left to write to.
    """
    target = out / f"{source.name}.parquet"
    if path is None:
        return Looked(report=absent(source, target, batch), profile=None, file=target)
    profilers: list[Profiler] = []

    def profiler(columns: Mapping[str, Any]) -> Profiler:
        within = freshness.within(batch, source, pipeline.batches, columns)
        profilers.append(Profiler(columns, within=within))
        return profilers[-1]

    report = check(path, source, memory_mib=memory_mib, out=target, batch=batch, waived=waived, profiler=profiler)
    return Looked(
        report=report,
        profile=profilers[-1].profile() if profilers else None,
        file=target if report.kept(waived=waived) else None,
        quarantine=quarantine_file(target) if report.quarantined else None,
    )


def judge(
    pipeline: Pipeline,
    looked: Mapping[str, Looked],
    *,
    batch: str,
    contents: Mapping[str, str],
    before: Sequence[tuple[str, Mapping[str, Accepted]]],
    repeated: str = "",
    landed: Mapping[str, dt.datetime] | None = None,
) -> dict[str, GateReport]:
    """Compare what the files say by themselves with the batch's name and with the accepted batches before it.

    Args:
        pipeline: its sources, batches and gate.
        looked: what `look` made of each file, by source.
        batch: its name.
        contents: data version of the rows that are kept, by source; without those of which none are.
        before: accepted batches before this one, each by source, oldest first, at most `BatchGate.history`.
        repeated: another accepted batch with the very same rows of all sources, however long ago; "" for none.
        landed: when the files landed, by source, where that is known.

    Returns:
        The reports by source with all families, those of the history behind the others.
    """
    reports: dict[str, GateReport] = {}
    for name, its in looked.items():
        source = pipeline.source(name)
        history = [accepted[name] for _, accepted in before if name in accepted]
        if its.file is None:
            message = f"not reached, since {its.report.failed[0]} failed"
            compared = [FamilyResult(name=each, status="not reached", message=message) for each in HISTORY_FAMILIES]
        elif its.profile is None:
            message = "it did not land: nothing is compared"
            compared = [FamilyResult(name=each, message=message) for each in HISTORY_FAMILIES]
        else:
            gate, batches, at = pipeline.batch_gate, pipeline.batches, (landed or {}).get(name)
            compared = [
                volume.judge(batch, its.profile, contents[name], history, repeated, gate, batches),
                freshness.judge(batch, its.profile, source, batches, at),
                kinds.judge(its.profile, history, source, gate),
            ]
        families = (*its.report.families, *compared)
        reports[name] = replace(
            its.report,
            accepted=all(family.passed for family in families),
            families=families,
            reason=describe(f"{name} {batch}".rstrip(), its.report.rows, families, its.report.quarantined),
        )
    return reports


def accepted_of(looked: Mapping[str, Looked], contents: Mapping[str, str], batch: str) -> dict[str, Accepted]:
    """What later batches are compared with, by source, where this one is accepted."""
    return {
        name: Accepted(batch=batch, content=contents[name], profile=its.profile)
        for name, its in looked.items()
        if its.profile is not None and name in contents
    }


def version_of(contents: Mapping[str, str]) -> str:
    """The data version of a whole batch, from that of each source's rows."""
    return short_hash({f"{name}.parquet": content for name, content in contents.items()})
