"""`ml-platform impact`: what a batch has reached."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml_platform.stages.impact import Impact

EXAMPLES = """[bold]Examples[/bold]

  ml-platform impact nyc_flights --batch 2013-02-09
  ml-platform impact nyc_flights --batch 2013-02-09 --json

To take it out of training: ml-platform withdraw nyc_flights 2013-02-09 --reason "..."
"""


def impact(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    batch: Annotated[str, typer.Option(metavar="B", help="A batch, such as one that was found bad.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say which artifacts, models and aliases a batch has reached."""
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named
    from ml_platform.stages import stages_of
    from ml_platform.stages.impact import impact_of
    from ml_platform.stages.opening import chain_of

    settings = common.load_settings()
    found = impact_of(chain_of(stages_of(pipeline_named(settings, name)), settings), batch)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
        return
    _show(found)


def _show(found: Impact) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli import common
    from ml_platform.words import few

    console = common.output()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("Stage", "made of it", "rejected", "standing now", "batches"):
        left = column in ("Stage", "batches")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for stage, reached in found.artifacts.items():
        batches = sorted({each.manifest.batch for each in reached} - {""})
        rejected = sum(each.manifest.verdict == "rejected" for each in reached)
        counts = (len(reached) - rejected, rejected, sum(each.published for each in reached))
        table.add_row(stage, *(str(count) if count else "-" for count in counts), escape(few(batches)))
    console.print(table)
    for version in found.versions:
        aliases = f" [bold red]{', '.join(version.aliases)}[/]" if version.aliases else ""
        console.print(f"[bold]Model[/bold]  {escape(version.name)} version {version.version}{aliases}")
    if not found.versions:
        console.print("It is in no registered model.")
    if any(each.published for stage, them in found.artifacts.items() if stage == "training_set" for each in them):
        hint = f'ml-platform withdraw {found.pipeline} {found.batch} --reason "..."'
        console.print(f"[dim]It is in the training set. To take it out: {escape(hint)}", soft_wrap=True)
