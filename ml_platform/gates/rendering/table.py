"""The reports for people at a terminal: a table of families, what is broken, and the first failing rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ml_platform.gates.rendering.finding import WORDS, CheckedFile
from ml_platform.gates.report import FamilyResult, Status
from ml_platform.words import counted

MARKS: Mapping[Status, tuple[str, str]] = {
    "passed": ("✓", "green"),
    "warned": ("!", "yellow"),
    "failed": ("✗", "red"),
    "not reached": ("·", "dim"),
}
"""What stands for a status, and its colour."""

CASES = 3
"""Failing rows that are shown of a family; the JSON has up to 20."""


def show(checked: Sequence[CheckedFile]) -> RenderableType:
    """Everything about every file; where there are several, a line about all of them at the end."""
    parts: list[RenderableType] = []
    for file in checked:
        parts += [_title(file), Padding(_families(file), (0, 0, 0, 2)), *_cases(file), ""]
    rejected = sum(not file.report.accepted for file in checked)
    if len(checked) > 1:
        parts.append(f"{len(checked)} files: {len(checked) - rejected} accepted, {rejected} rejected.")
    return Group(*parts)


def _title(file: CheckedFile) -> Text:
    report = file.report
    rows = f", {counted(report.rows, 'row')}" + (
        f", {report.quarantined:,} of them set aside" if report.quarantined else ""
    )
    verdict = ("ACCEPTED", "bold green") if report.accepted else ("REJECTED", "bold red")
    return Text.assemble(verdict, "  ", (file.subject, "bold"), rows, "\n", (file.path, "dim"))


def _families(file: CheckedFile) -> RenderableType:
    """A line for each family that has something to say, and one for all the others."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in ("mark", "family", "status"):
        table.add_column(name, no_wrap=True)
    table.add_column("what", overflow="fold")
    quiet = []
    for family in file.report.families:
        if family.status == "passed" and not family.message:
            quiet.append(family.name)
            continue
        mark, style = MARKS[family.status]
        # Before the message and not beside it: in a narrow window there would be no room left for the mark.
        count = f"{family.failures:,} of {family.checked:,} ({family.fraction:.1%}): " if family.failures else ""
        table.add_row(f"[{style}]{mark}", family.name, WORDS[family.status], escape(f"{count}{family.message}"))
    mark, style = MARKS["passed"]
    passed = Text.assemble((mark, style), "  ", ", ".join(quiet))
    return Group(*([table] if table.row_count else []), *([passed] if quiet else []))


def _cases(file: CheckedFile) -> list[RenderableType]:
    """The first failing rows of each family that has some."""
    parts: list[RenderableType] = []
    for family in file.report.families:
        if family.cases and family.status != "passed":
            parts.append(Padding(Text(f"{family.name}: failing rows", style="bold"), (1, 0, 0, 2)))
            parts.append(Padding(_case_table(family), (0, 0, 0, 2)))
    return parts


def _case_table(family: FamilyResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("row", "column", "value", "rule", "the whole row"):
        table.add_column(name, overflow="fold", justify="right" if name == "row" else "left")
    for case in family.cases[:CASES]:
        row = "-" if case["row"] is None else f"{case['row']:,}"
        cells = (row, str(case["column"]), _text(case["value"]), str(case["check"]), _record(case["record"]))
        table.add_row(*map(escape, cells))
    if len(family.cases) > CASES or family.failures > CASES:
        table.caption = f"{min(CASES, len(family.cases))} of {max(family.failures, len(family.cases)):,}"
        table.caption_justify = "left"
    return table


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _record(record: Any) -> str:
    if not isinstance(record, Mapping):
        return _text(record)
    return ", ".join(f"{name}={_text(value)}" for name, value in record.items())
