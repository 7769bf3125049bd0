"""The heat map of a page: one column a batch, one row a family of a source, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from markupsafe import Markup

from ml_platform.stages.verdicts import BatchVerdict, family_names

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline

CELL, ROW, LABELS, HEAD = 11, 15, 150, 16
"""Pixels of a cell and a row, of the names left of them, and of the batches' names above."""
BLOCK = 92
"""Batches side by side: a quarter of a year."""
NAMED = 8
"""Every so many batches one is named."""

SIGNS: Mapping[str, str] = {"warned": "!", "failed": "x", "waived": "w", "not reached": "", "withdrawn": "-"}
"""What stands in a cell beside its colour."""


def anchor(batch: str) -> str:
    """The id of a batch's section."""
    return f"batch-{batch}"


def blocks(pipeline: Pipeline, verdicts: Sequence[BatchVerdict], described: set[str]) -> Iterator[Markup]:
    """The heat map, a block after the other.

    Args:
        pipeline: whose.
        verdicts: in name order.
        described: batches that have a section, to which their cells lead.
    """
    for start in range(0, len(verdicts), BLOCK):
        yield Markup(_block(pipeline, verdicts[start : start + BLOCK], described))


def _block(pipeline: Pipeline, verdicts: Sequence[BatchVerdict], described: set[str]) -> str:
    families = family_names(report for verdict in verdicts for report in verdict.reports.values())
    sources = [source.name for source in pipeline.sources if any(source.name in v.reports for v in verdicts)]
    rows: list[tuple[str, str]] = [(source, family) for source in sources for family in families]
    parts: list[str] = []
    for place, verdict in enumerate(verdicts):
        left = LABELS + CELL * place
        if place % NAMED == 0:
            parts.append(f'<text x="{left}" y="{HEAD - 5}">{escape(verdict.batch)}</text>')
    top, quiet = HEAD, []
    cells: list[str] = []
    for index, (source, family) in enumerate([("", "verdict"), *rows]):
        if index == 1 or (index > 1 and source != rows[index - 2][0]):
            top += 6
            parts.append(f'<text x="0" y="{top + ROW - 4}" class="source">{escape(source)}</text>')
        parts.append(f'<text x="{LABELS - 6}" y="{top + ROW - 4}" text-anchor="end">{escape(family)}</text>')
        for place, verdict in enumerate(verdicts):
            left = LABELS + CELL * place
            status = verdict_status(verdict) if index == 0 else _status(verdict, source, family)
            if status == "passed":
                quiet.append(f"M{left} {top + 1}h{CELL - 1}v{ROW - 2}h-{CELL - 1}z")
            elif status:
                cells.append(_cell(verdict, source, family, status, left, top, described))
        top += ROW
    columns = "".join(
        f'<rect class="column" x="{LABELS + CELL * place}" y="{HEAD}" width="{CELL}" height="{top - HEAD}">'
        f"<title>{escape(verdict.batch)}: {escape(verdict_status(verdict))}</title></rect>"
        for place, verdict in enumerate(verdicts)
    )
    width = LABELS + CELL * max(len(verdicts), NAMED) + 70
    return (
        f'<svg class="map" width="{width}" height="{top + 4}" viewBox="0 0 {width} {top + 4}" role="img" '
        f'aria-label="Heat map of batches and checks">{"".join(parts)}<path class="passed" d="{"".join(quiet)}"/>'
        f"{columns}{''.join(cells)}</svg>"
    )


def verdict_status(verdict: BatchVerdict) -> str:
    """What is said of a batch as a whole."""
    if verdict.withdrawn:
        return "withdrawn"
    if verdict.verdict == "accepted":
        return "warned" if "warned" in verdict.families.values() else "passed"
    return "failed" if verdict.verdict == "rejected" else "waived"


def _status(verdict: BatchVerdict, source: str, family: str) -> str:
    if source not in verdict.reports:
        return ""
    status = verdict.worst(family, [source])
    return "waived" if status == "failed" and verdict.verdict == "waived" else status


def _cell(
    verdict: BatchVerdict, source: str, family: str, status: str, left: int, top: int, described: set[str]
) -> str:
    kind = status.replace(" ", "-")
    said = next((its.message for its in verdict.reports[source].families if its.name == family), "") if source else ""
    title = " ".join(filter(None, (verdict.batch, source, family))) + f": {status}" + (f". {said}" if said else "")
    size = f'width="{CELL - 1}" height="{ROW - 2}"'
    cell = f'<rect class="{kind}" x="{left}" y="{top + 1}" {size}><title>{escape(title[:300])}</title></rect>'
    if sign := SIGNS[status]:
        cell += f'<text class="sign" x="{left + CELL / 2 - 0.5}" y="{top + ROW - 4}">{sign}</text>'
    if verdict.batch in described:
        return f'<a href="#{escape(anchor(verdict.batch), quote=True)}">{cell}</a>'
    return cell
