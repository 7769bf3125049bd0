"""`ml-platform plan --diff`: what the code here makes stale that a git revision's did not."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.settings import Settings
    from ml_platform.stages.difference import PipelineDifference, StageDifference

WORDS = {"same": "-", "stale": "stale", "may": "may run", "added": "added", "removed": "removed"}


def compare_and_show(revision: str, names: Collection[str], settings: Settings, *, as_json: bool) -> int:
    """Compare, and print it.

    Returns:
        What the command ends with: 1 where a pipeline that was named is in no repository with that revision, else 2
        where something differs, else 0.
    """
    from ml_platform.cli import common
    from ml_platform.discovery import pipelines
    from ml_platform.stages.difference import compare

    found = compare(revision, settings, pipelines(settings), names)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        for pipeline in found.pipelines:
            _show(pipeline, revision, common.output())
    for reason in dict.fromkeys(pipeline.uncounted for pipeline in found.pipelines if pipeline.uncounted):
        common.notices().print(f"Batches and seconds are left out: {reason}", markup=False, soft_wrap=True)
    if names and any(pipeline.change == "not compared" for pipeline in found.pipelines):
        return 1
    return 2 if found.differs else 0


def _show(pipeline: PipelineDifference, revision: str, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli.plan import CAUSES, limited, show_reasons

    if pipeline.change == "not compared":
        text = f"{pipeline.name}: not compared. Its package is not in this repository, nor in another with {revision}."
        console.print(text, markup=False, soft_wrap=True)
        return
    title = f"{pipeline.name}, compared with {pipeline.revision}"
    if pipeline.change == "same":
        console.print(f"{escape(title)}: the same code versions.")
        return
    if pipeline.change in ("added", "removed"):
        console.print(f"{escape(title)}: {pipeline.change}.")
        return
    console.print(f"[bold]{escape(title)}[/bold]")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Stage", no_wrap=True)
    for word in ("state", *(() if pipeline.uncounted else ("batches", "takes"))):
        table.add_column(word, justify="left" if word == "state" else "right")
    why: list[tuple[str, str]] = []
    for stage in pipeline.stages:
        table.add_row(stage.name, WORDS[stage.state], *(() if pipeline.uncounted else _counts(stage)))
        why += [(stage.name, line) for line in limited([str(cause) for cause in stage.causes], CAUSES)]
        if stage.state == "may":
            why.append((stage.name, f"waits for {', '.join(stage.waits_for)}"))
    console.print(table)
    show_reasons(why, console)
    console.print(f"\n{_cost(pipeline)}")


def _counts(stage: StageDifference) -> tuple[str, str]:
    from ml_platform.stages.cost import duration

    if stage.state in ("same", "removed"):
        return "-", "-"
    takes = "?" if stage.cost is None else duration(stage.cost.seconds)
    return str(stage.artifacts), f"up to {takes}" if stage.state == "may" and takes != "?" else takes


def _cost(pipeline: PipelineDifference) -> str:
    from ml_platform.cli.plan import total_line

    certain = [stage for stage in pipeline.stages if stage.state in ("stale", "added")]
    possible = [stage for stage in pipeline.stages if stage.state == "may"]
    if pipeline.uncounted:
        return f"{len(certain)} of {len(pipeline.stages)} stages are stale, {len(possible)} more may run."
    unknown = [stage.name for stage in (*certain, *possible) if stage.cost is None]
    least = [stage.cost for stage in certain]
    return total_line(least, [*least, *(stage.cost for stage in possible)], unknown)
