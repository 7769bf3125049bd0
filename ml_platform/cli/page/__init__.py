"""What the gates said, as one page for a browser: a heat map, reasons, failing rows, distributions beside those before.

The page is a single file that asks nothing of a network and runs no script. Everything that comes from data is escaped.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined

from ml_platform.cli.page.distributions import Drawn, draw
from ml_platform.cli.page.matrix import anchor, blocks, verdict_status
from ml_platform.gates.report import FamilyResult
from ml_platform.stages.verdicts import BatchVerdict, StageVerdict

if TYPE_CHECKING:
    from ml_platform.gates.profile import Profile
    from ml_platform.stages.chain import Chain

WHOLE = 30
"""Of so many rejected or waived batches, the latest, every column is drawn; of the others those that are told of."""
DRAWN = 120
"""Of so many batches, the latest, anything is drawn."""


@dataclass(frozen=True, kw_only=True)
class SourceSection:
    """What is shown of one source of a batch."""

    name: str
    rows: int
    quarantined: int
    families: tuple[FamilyResult, ...]
    told: tuple[Drawn, ...]
    others: tuple[Drawn, ...]
    compared: str


@dataclass(frozen=True, kw_only=True)
class BatchSection:
    """What is shown of one batch."""

    anchor: str
    status: str
    verdict: BatchVerdict
    sources: tuple[SourceSection, ...]


def render(
    chain: Chain,
    verdicts: Sequence[BatchVerdict],
    stages: Sequence[StageVerdict],
    *,
    failing: bool = False,
    waiting: int = 0,
) -> str:
    """The page, as HTML.

    Args:
        chain: whose profiles are drawn.
        verdicts: of the data gate, in name order.
        stages: checks of what is not cut into batches.
        failing: leave what is quiet out of the heat map.
        waiting: how many batches have landed and were not judged yet.
    """
    told = [verdict for verdict in verdicts if not verdict.quiet]
    shown = told if failing else verdicts
    statuses = [verdict_status(verdict) for verdict in verdicts]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["told"] = _told
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        pipeline=chain.pipeline,
        when=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        counts={status: statuses.count(status) for status in dict.fromkeys(("failed", "waived", "warned", "passed"))},
        batches=len(verdicts),
        waiting=waiting,
        blocks=list(blocks(chain.pipeline, shown, {verdict.batch for verdict in told})),
        stages=stages,
        sections=list(_sections(chain, told))[::-1],
    )


def _told(value: Any) -> str:
    """A value of a failing row."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sections(chain: Chain, told: Sequence[BatchVerdict]) -> Iterator[BatchSection]:
    """A section for each batch of which something is told; everything is drawn of the latest that were rejected."""
    whole = {verdict.batch for verdict in [v for v in told if v.verdict != "accepted"][-WHOLE:]}
    drawn = {verdict.batch for verdict in told[-DRAWN:]} | whole
    for verdict in told:
        yield BatchSection(
            anchor=anchor(verdict.batch),
            status=verdict_status(verdict),
            verdict=verdict,
            sources=tuple(
                sorted(
                    (
                        _source(chain, verdict, name, drawn=verdict.batch in drawn, whole=verdict.batch in whole)
                        for name in verdict.reports
                    ),
                    key=lambda source: all(family.status == "passed" for family in source.families),
                )
            ),
        )


def _source(chain: Chain, verdict: BatchVerdict, name: str, *, drawn: bool, whole: bool) -> SourceSection:
    report = verdict.reports[name]
    said: dict[str, list[str]] = {}
    for family in report.families:
        for rule in family.broken if family.status in ("failed", "warned") else ():
            for column in filter(None, rule.column.split(", ")):
                count = f" ({rule.failures:,} rows)" if rule.failures else ""
                told = rule.message.removeprefix(f"{column}: ") or f"{rule.check}{count}"
                said.setdefault(column, []).append(told)
    profile = verdict.profile(chain.store, name) if drawn and (said or whole) else None
    before = _before(chain, verdict.batch, name) if profile is not None else []
    columns = list(draw(verdict.batch, profile, before, said=said, only=not whole)) if profile is not None else []
    return SourceSection(
        name=name,
        rows=report.rows,
        quarantined=report.quarantined,
        families=report.families,
        told=tuple(column for column in columns if column.said),
        others=tuple(column for column in columns if not column.said),
        compared=f"{len(before)} accepted batches, {before[0][0]} to {before[-1][0]}" if before else "",
    )


def _before(chain: Chain, batch: str, source: str) -> list[tuple[str, Profile]]:
    found = chain.history.before(batch, chain.pipeline.batch_gate.history)
    return [(name, accepted[source].profile) for name, accepted in found if source in accepted]
