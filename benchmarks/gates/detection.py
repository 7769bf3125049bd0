"""Detection: every fault put into real days at random places, judged as if it had come instead of the real file.

Twice: with the pipeline's own schema, and with one that declares types and nothing else, which shows what the history
alone finds. What is told is of days with even dates. Faults were put only into those with odd dates while the gate's
thresholds and floors were set, and while it was settled which faults are gross, subtle or faint. False alarms were
looked at on all days, though: there are too few of them to put half aside.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks import common
from benchmarks.gates import days, faults
from ml_platform.gates.report import GateReport
from ml_platform.pipeline import Pipeline
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

WANTED = {"gross": 0.99, "subtle": 0.8}
FOUR_WEEKS = 28


@dataclass
class Trial:
    """One fault in one file.

    Args:
        fault: which.
        day, source, column: where.
        status: "rejected", "warned", "missed", or "same" where the very rows of the real file came out.
        by: families that failed, or warned.
    """

    fault: faults.Fault
    day: str
    source: str
    column: str
    status: str
    by: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Gross or subtle, where it was put."""
        return "subtle" if self.source == self.fault.subtle_in else self.fault.kind


def measure(folder: Path, done: days.Replay, *, trials: int, seed: int, which: Callable[[str], bool]) -> list[Trial]:
    """Print both tables; returns the trials with the pipeline's own schema."""
    found = []
    for name, pipeline in (("the declared schema", PIPELINE), ("types only", days.BARE)):
        before = done if pipeline is PIPELINE else days.replay(pipeline, folder, days.days())
        if pipeline is not PIPELINE:
            print(f"\nwith types only, {len(before.rejected)} real days are rejected: {', '.join(before.rejected)}")
        tried = try_all(pipeline, before, folder, trials=trials, seed=seed, which=which)
        print(f"\n### With {name}\n\n{table(tried)}")
        found.append(tried)
    return found[0]


def try_all(
    pipeline: Pipeline, done: days.Replay, folder: Path, *, trials: int, seed: int, which: Callable[[str], bool]
) -> list[Trial]:
    """So many trials of each fault, on accepted days that have enough accepted before them."""
    names = [day for day, _ in done.accepted]
    possible = [day for day in names if which(day) and names.index(day) >= pipeline.batch_gate.least]
    found = []
    for fault in faults.FAULTS:
        # A fault's draws do not depend on which other faults there are.
        random = np.random.default_rng([seed, zlib.crc32(fault.name.encode())])
        for _ in range(trials):
            found.append(_try(pipeline, done, folder, fault, possible, random))
    return found


def table(trials: list[Trial]) -> str:
    """Fault by fault, and both kinds together."""
    shown = common.Table(["fault", "kind", "trials", "rejected", "warned", "missed", "rejected by"])
    for fault in faults.FAULTS:
        its = [trial for trial in trials if trial.fault is fault]
        if its:
            by: dict[str, int] = {}
            for family in (family for trial in its if trial.status == "rejected" for family in trial.by):
                by[family] = by.get(family, 0) + 1
            families = ", ".join(f"{name} {count}" for name, count in sorted(by.items(), key=lambda one: -one[1]))
            if fault.kind == "harmless":
                families = f"{_share(its, 'same')} come out as the same rows"
            shares = [_share(its, status) for status in ("rejected", "warned", "missed")]
            kind = f"{fault.kind}, {fault.subtle_in} subtle" if fault.subtle_in else fault.kind
            shown.add(fault.name, kind, len(its), *shares, families)
    lines = [str(shown), ""]
    for kind, wanted in WANTED.items():
        its = [trial for trial in trials if trial.kind == kind]
        if its:
            share = sum(trial.status == "rejected" for trial in its) / len(its)
            told = sum(trial.status == "warned" for trial in its) / len(its)
            good = "yes" if share >= wanted else "NO"
            lines.append(
                f"{kind}: {share:.1%} of {len(its):,} rejected (wanted >= {wanted:.0%}: {good}), {told:.1%} warned"
            )
    return "\n".join(lines)


def _share(trials: list[Trial], status: str) -> str:
    return f"{sum(trial.status == status for trial in trials) / len(trials):.0%}"


def _try(
    pipeline: Pipeline,
    done: days.Replay,
    folder: Path,
    fault: faults.Fault,
    possible: list[str],
    random: np.random.Generator,
) -> Trial:
    all_days = days.days()
    while True:
        day = str(random.choice(possible))
        source, column = fault.draw(random, all_days[day])
        before = done.before(day, pipeline.batch_gate.history)
        rows = all_days[day][source]
        sigma = _sigma([all_days[name][source] for name, _ in before[-FOUR_WEEKS:]], column)
        yesterday = all_days[before[-1][0]][source]
        landed = fault.make(faults.Place(rows, column, yesterday, sigma, random))
        if fault.kind == "harmless" or faults.changes(rows, landed):
            break
    real = dict(done.accepted)[day][source]
    looked = {source: days.see(pipeline, source, day, landed, folder)}
    reports, accepted = days.verdict(pipeline, looked, day, before)
    same = source in accepted and accepted[source].content == real.content
    status, by = _status(reports[source])
    return Trial(fault, day, source, column, "same" if same else status, by)


def _sigma(frames: list[pl.DataFrame], column: str) -> float:
    values = pl.concat([frame.select(column) for frame in frames])[column]
    return float(values.std() or 0) if values.dtype.is_numeric() else 0.0  # type: ignore[arg-type]


def _status(report: GateReport) -> tuple[str, tuple[str, ...]]:
    warned = tuple(family.name for family in report.families if family.status == "warned")
    if not report.accepted:
        return "rejected", report.failed
    return ("warned", warned) if warned else ("missed", ())
