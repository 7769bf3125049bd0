"""False alarms: the 181 real days in order, with default settings. Every day that is rejected or warned of is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import common
from benchmarks.gates import days
from ml_platform.gates.report import GateReport
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

WANTED = 0.02


def measure(folder: Path) -> days.Replay:
    """Print the table; returns the replay with the pipeline's own schema."""
    done = days.replay(PIPELINE, folder, days.days())
    shown = common.Table(["day", "source", "", "why"])
    for day, reports in done.reports.items():
        for source, report in reports.items():
            for status, why in _told(report):
                shown.add(day, source, status, why)
    print(shown)
    share = len(done.rejected) / len(done.reports)
    good = "yes" if share <= WANTED else "NO"
    print(f"\nrejected {len(done.rejected)} of {len(done.reports)} days: {share:.1%} (wanted <= {WANTED:.0%}: {good})")
    return done


def _told(report: GateReport) -> Iterator[tuple[str, str]]:
    for family in report.families:
        if family.status in ("failed", "warned"):
            first = family.broken[0].message if family.broken and family.broken[0].message else family.message
            yield ("**rejected**" if family.status == "failed" else "warned"), f"{family.name}: {first}"
