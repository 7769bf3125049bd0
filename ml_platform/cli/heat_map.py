"""The heat map of `ml-platform gates` in a terminal: all batches at a glance, then batches by checks.

It is readable without colours, and in 80 columns. Runs of batches of which nothing is to be told are one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ml_platform.batches import DailyBatches
from ml_platform.gates.report import sentence
from ml_platform.stages.verdicts import family_names
from ml_platform.words import counted

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.stages.verdicts import BatchVerdict, StageVerdict

MARKS: Mapping[str, tuple[str, str]] = {
    "passed": ("·", "green"),
    "warned": ("!", "bold yellow"),
    "failed": ("✗", "bold red"),
    "waived": ("w", "bold magenta"),
    "not reached": ("-", "dim"),
    "withdrawn": ("o", "bold dim"),
}
"""What stands for a status, and its colour. What has passed is quiet, so that the rest is seen."""
SHORT: Mapping[str, str] = {
    "readable": "read",
    "columns": "cols",
    "types": "type",
    "nulls": "null",
    "values": "vals",
    "unique": "uniq",
    "freshness": "fresh",
    "volume": "vol",
}
"""Families whose names are cut, so that eleven columns fit."""
ROW = 50
"""Batches in a row of the overview, where they are no days."""
APART = 4
"""With more sources, each cell is the worst of them."""
REASONS = 15
"""Batches whose reasons are shown; with --html all."""


def show(
    pipeline: Pipeline,
    verdicts: Sequence[BatchVerdict],
    stages: Sequence[StageVerdict],
    console: Console,
    *,
    failing: bool,
    waiting: int,
) -> None:
    """Print it all.

    Args:
        pipeline: whose.
        verdicts: of the data gate, in name order.
        stages: checks of what is not cut into batches.
        console: where.
        failing: leave out what is quiet.
        waiting: how many batches have landed and were not judged yet.
    """
    console.print(f"[bold]{pipeline.name}[/bold]  {counts(verdicts)}" + (f", {waiting} not judged yet" * bool(waiting)))
    if not verdicts:
        console.print(f"Nothing was judged yet: `ml-platform run {pipeline.name}` does that.")
    else:
        console.print()
        for line in _overview(verdicts):
            console.print(line, soft_wrap=True)
        shown = [verdict for verdict in verdicts if not (failing and verdict.quiet)]
        if shown:
            console.print()
            console.print(_map(pipeline, shown))
            _legend(pipeline, shown, console)
        _reasons(verdicts, console)
    if checks := list(_stage_lines(stages, failing=failing)):
        console.print("\n[bold]What is not cut into batches[/bold]")
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for cells in checks:
            table.add_row(*cells)
        console.print(table)


def counts(verdicts: Sequence[BatchVerdict]) -> str:
    """How many there are of each verdict, in words."""
    by = [verdict.verdict for verdict in verdicts]
    words = {"rejected": by.count("rejected"), "waived": by.count("waived"), "accepted": by.count("accepted")}
    warned = sum(v.verdict == "accepted" and "warned" in v.families.values() for v in verdicts)
    told = ", ".join(f"{count} {word}" for word, count in words.items() if count or word != "waived")
    return f"{counted(len(verdicts), 'batch', 'batches')}: {told}" + (f" ({warned} with a warning)" if warned else "")


def mark(verdict: BatchVerdict) -> tuple[str, str]:
    """What stands for a whole batch, and its colour."""
    if verdict.withdrawn:
        return MARKS["withdrawn"]
    if verdict.verdict == "waived":
        return MARKS["waived"]
    if verdict.verdict == "rejected":
        return MARKS["failed"]
    return MARKS["warned" if "warned" in verdict.families.values() else "passed"]


def _overview(verdicts: Sequence[BatchVerdict]) -> Iterator[Text]:
    """One sign a batch: a line a month where batches are days, each in its day's place; else lines of fifty."""
    if all(DailyBatches.is_name(verdict.batch) for verdict in verdicts):
        for month, days in groupby(verdicts, key=lambda verdict: verdict.batch[:7]):
            by_day = {int(verdict.batch[8:]): mark(verdict) for verdict in days}
            yield Text.assemble((f"{month}  ", "bold"), *(by_day.get(day, (" ", "")) for day in range(1, 32)))
        return
    width = max(len(verdict.batch) for verdict in verdicts)
    for start in range(0, len(verdicts), ROW):
        some = verdicts[start : start + ROW]
        yield Text.assemble((f"{some[0].batch:{width}}  ", "bold"), *map(mark, some))


def _map(pipeline: Pipeline, verdicts: Sequence[BatchVerdict]) -> Table:
    families = family_names(report for verdict in verdicts for report in verdict.reports.values())
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Batch", no_wrap=True)
    for family in families:
        table.add_column(SHORT.get(family, family), no_wrap=True)
    for quiet, some in _lines(verdicts):
        for verdict in [some[0]] if quiet else some:
            label = f"{verdict.batch} +{len(some) - 1}" if quiet and len(some) > 1 else verdict.batch
            table.add_row(escape(label), *(_cell(pipeline, verdict, family) for family in families))
    return table


def _lines(verdicts: Sequence[BatchVerdict]) -> Iterator[tuple[bool, list[BatchVerdict]]]:
    """Batches that follow each other and of which nothing is told, which share a line, or something is."""
    for quiet, group in groupby(verdicts, key=lambda verdict: verdict.quiet):
        yield quiet, list(group)


def _cell(pipeline: Pipeline, verdict: BatchVerdict, family: str) -> Text:
    """A sign for each source, in the order in which they are declared; of very many sources the worst."""
    sources = [source.name for source in pipeline.sources if source.name in verdict.reports]
    groups = [[source] for source in sources] if len(sources) <= APART else [sources]
    signs = []
    for group in groups:
        status = verdict.worst(family, group)
        signs.append(MARKS["waived"] if status == "failed" and verdict.verdict == "waived" else MARKS[status])
    return Text.assemble(*signs)


def _legend(pipeline: Pipeline, shown: Sequence[BatchVerdict], console: Console) -> None:
    gone = any(verdict.withdrawn for verdict in shown)
    words = [word for word in MARKS if word != "withdrawn" or gone]
    legend = Text.assemble(*(part for word in words for part in (MARKS[word], f" {word}   ")))
    console.print(legend)
    told = []
    if 1 < len(pipeline.sources) <= APART:
        told.append(f"In each cell: {', '.join(source.name for source in pipeline.sources)}.")
    if skipped := next((len(some) - 1 for quiet, some in _lines(shown) if quiet and len(some) > 1), 0):
        told.append(f"“+{skipped}”: and {counted(skipped, 'batch', 'batches')} after it, of which nothing is told.")
    if told:
        console.print(f"[dim]{escape(' '.join(told))}")


def _reasons(verdicts: Sequence[BatchVerdict], console: Console) -> None:
    """Why, the latest last: what is rejected or waived before what only warns."""
    told = [verdict for verdict in verdicts if verdict.verdict != "accepted" or verdict.withdrawn][-REASONS:]
    warned = [verdict for verdict in verdicts if not verdict.quiet and verdict not in told]
    shown = sorted([*told, *warned[max(0, len(warned) + len(told) - REASONS) :]], key=lambda verdict: verdict.batch)
    left_out = sum(not verdict.quiet for verdict in verdicts) - len(shown)
    if not shown:
        return
    console.print("\n[bold]Why[/bold]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for verdict in shown:
        sign, style = mark(verdict)
        table.add_row(Text.assemble((f"{sign} ", style), verdict.batch), _why(verdict))
    console.print(table)
    if left_out:
        console.print(f"  and {left_out} more; --html FILE writes them all, with distributions")


def _why(verdict: BatchVerdict) -> Text:
    """The worst rule of each family that says something."""
    parts = []
    for report in verdict.reports.values():
        for family in report.families:
            if family.status in ("failed", "warned"):
                more = f"; and {len(family.broken) - 1} more rules" if len(family.broken) > 1 else ""
                worst = sentence(family.broken[:1], family.cases, family.checked) or family.message
                parts.append(f"{report.feed}, {family.name}: {worst}{more}")
    told = "\n".join(parts)
    if waiver := verdict.waiver:
        told = f"waived by {waiver['by']}: {waiver['reason']}\n{told}"
    return Text(f"{verdict.withdrawn}\n{told}".strip() if verdict.withdrawn else told)


def _stage_lines(stages: Sequence[StageVerdict], *, failing: bool) -> Iterator[tuple[str, Text, str]]:
    """Lines for the checks of a stage, its name in the first one; those that have nothing to say share a line."""
    for stage in stages:
        lines: list[tuple[Text, str]] = []
        quiet = [check["name"] for check in stage.checks if check["passed"] and not check["description"]]
        if quiet and not failing:
            lines.append(
                (
                    Text.assemble(MARKS["passed"], f" {len(quiet)} {'check' if len(quiet) == 1 else 'checks'}"),
                    ", ".join(quiet),
                )
            )
        for check in stage.checks:
            if check["name"] in quiet or (failing and check["passed"]):
                continue
            status = "passed" if check["passed"] else "warned" if check["warn"] else "failed"
            if status != "passed" and stage.manifest.verdict == "waived":
                status = "waived"
            lines.append((Text.assemble(MARKS[status], f" {check['name']}"), escape(check["description"])))
        for place, (sign, said) in enumerate(lines):
            yield "" if place else stage.stage, sign, said
