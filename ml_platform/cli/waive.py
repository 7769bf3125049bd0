"""`ml-platform waive` and `waivers`: accept a batch that a gate rejected, take that back, and see who decided what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain

WAIVE_EXAMPLES = """[bold]Examples[/bold]

  ml-platform waive nyc_flights 2013-02-09 --reason "a blizzard, the numbers are right" --expires 30d
  ml-platform waive nyc_flights 2013-02-09 --revoke --reason "the airline has corrected them"
  ml-platform waive nyc_flights --stage planes --reason "two planes are built twice"

It holds for the data that the gate has rejected, and for no other. The rows that
break a rule stay in. Every model that learns from them says so."""

WAIVERS_EXAMPLES = """[bold]Examples[/bold]

  ml-platform waivers nyc_flights    who accepted or withdrew which batch, when, why, until when"""


def waive(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="The rejected batch; none for a reference.")] = "",
    reason: Annotated[str, typer.Option(help="Why it is good enough, or no longer is. It must be said.")] = "",
    by: Annotated[str, typer.Option(metavar="NAME", help="Who says so. Default: the user of this machine.")] = "",
    expires: Annotated[
        str | None,
        typer.Option(metavar="30d | 2026-12-31", help="How long it holds, or its last day. Default: for good."),
    ] = None,
    stage: Annotated[str, typer.Option(metavar="STAGE", help="Whose gate: this, or a reference.")] = "validated_batch",
    revoke: Annotated[bool, typer.Option("--revoke", help="Take a waiver back.")] = False,
) -> None:
    """Accept a batch that a gate rejected, by name and with a reason."""
    from rich.markup import escape

    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named
    from ml_platform.stages import waiving

    settings = common.load_settings()
    chain = _chain(pipeline_named(settings, name), settings)
    by = by or common.user()
    if revoke:
        taken_back = waiving.revoke(chain, batch, by=by, reason=reason, stage=stage)
        told = "".join(f"Revoked: {waiver.describe()}\n" for waiver in taken_back)
        told += f"The next `ml-platform run {name}` goes on without it."
    else:
        given = waiving.waive(chain, batch, by=by, reason=reason, expires=expires, stage=stage)
        told = f"{given.stage} {given.batch}".rstrip() + f" is {given.describe()}\nThe gate had said: {given.said}\n"
        told += f"The next `ml-platform run {name}` takes it in."
    common.output().print(escape(told), soft_wrap=True)


def waivers(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="Pipelines by name. Default: all of them.")
    ] = None,
) -> None:
    """Show what was waived and withdrawn: by whom, when, why, until when, and whether it still holds."""
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named, pipelines
    from ml_platform.gates.waivers import shown_time
    from ml_platform.stages import waiving, withdrawing

    settings = common.load_settings()
    chosen = [pipeline_named(settings, name) for name in names] if names else list(pipelines(settings).values())
    blocks: list[RenderableType] = []
    for pipeline in chosen:
        chain = _chain(pipeline, settings)
        for entry in chain.waivers.entries():
            waiver = entry.decision
            until = f"until {shown_time(waiver.expires)}" if waiver.expires else "for good"
            blocks += _block(
                f"{pipeline.name}/{waiver.stage} {waiver.batch}".rstrip(),
                f"waived, {waiving.state(chain, entry)}",
                {
                    "by": f"{waiver.by}, {shown_time(waiver.when)}, {until}",
                    "why": waiver.reason,
                    "the gate had said": waiver.said,
                },
            )
        for each in chain.withdrawals.entries():
            gone = each.decision
            when = shown_time(gone.when) if gone.when else "nobody knows when"
            blocks += _block(
                f"{pipeline.name} {gone.batch}",
                f"withdrawn, {withdrawing.state(each)}",
                {"by": f"{gone.by}, {when}", "why": gone.reason},
            )
    console = common.output()
    for block in blocks or ["Nothing was ever waived or withdrawn."]:
        console.print(block)


def _block(what: str, state: str, lines: Mapping[str, str]) -> list[RenderableType]:
    """One decision: what it is of and how it stands, then a line or more for each thing that is told."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(f"  {name}", Text(text))
    return [Text.assemble((what, "bold"), f"  {state}"), table]


def _chain(pipeline: Pipeline, settings: Settings) -> Chain:
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of

    return chain_of(stages_of(pipeline), settings)
