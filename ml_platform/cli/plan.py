"""`ml-platform plan` and `explain`: what a run would do and why, and what a stage's code version is made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.plan import StagePlan

PLAN_EXAMPLES = """[bold]Examples[/bold]

  ml-platform plan nyc_flights           stage by stage: what is fresh, what would run, and why
  ml-platform plan nyc_flights --json    the same for a program

Nothing is built or changed. Ends with 0 where there is nothing to do, and with 2 where a run would do something."""

EXPLAIN_EXAMPLES = """[bold]Examples[/bold]

  ml-platform explain nyc_flights features    the modules, libraries and parameters behind its results"""

SHOWN_CAUSES = 6


def plan(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PIPELINE]...", help="Pipelines by name. Default: all of them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run would do, and why, without doing it."""
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named, pipelines

    settings = common.load_settings()
    chosen = [pipeline_named(settings, name) for name in names] if names else list(pipelines(settings).values())
    plans = {pipeline.name: _plan(pipeline, settings) for pipeline in chosen}
    console = common.output()
    if as_json:
        typer.echo(json.dumps({name: [asdict(stage) for stage in found] for name, found in plans.items()}, indent=1))
    else:
        for name, found in plans.items():
            _show(name, found, console)
    raise typer.Exit(2 if any(stage.to_do for found in plans.values() for stage in found) else 0)


def _plan(pipeline: Pipeline, settings: Settings) -> list[StagePlan]:
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of
    from ml_platform.stages.plan import make_plan

    chain = chain_of(stages_of(pipeline), settings)
    chain.planning = True
    return make_plan(chain)


def _show(name: str, found: list[StagePlan], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=name, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("Stage")
    for word in ("fresh", "known", "will run", "may run", "rejected", "waiting", "seconds"):
        table.add_column(word, justify="right")
    table.add_column("why")
    for stage in found:
        counts = (stage.fresh, stage.known, stage.stale, stage.may, stage.rejected, stage.waiting)
        cells = [str(len(part)) if part else "-" for part in counts]
        seconds = "-" if not stage.stale else "?" if stage.seconds is None else f"{stage.seconds:.1f}"
        table.add_row(stage.name, *cells, seconds, escape(_why(stage)))
    console.print(table)
    if not any(stage.to_do for stage in found):
        console.print("Nothing to do.")


def _why(stage: StagePlan) -> str:
    causes = [
        f"{cause} ({count})" if count > 1 else cause for cause, count in list(stage.causes.items())[:SHOWN_CAUSES]
    ]
    if more := len(stage.causes) - SHOWN_CAUSES:
        causes += [f"and {more} more"] if more > 0 else []
    reasons = list(dict.fromkeys([*stage.rejected.values(), *stage.waiting.values()]))[:2]
    return "; ".join([*causes, *reasons])


def explain(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="One of its stages, such as features.")],
) -> None:
    """Show what went into a stage's code version: edit any of it, and its artifacts are stale."""
    from rich.markup import escape

    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named
    from ml_platform.errors import DeclarationError
    from ml_platform.stages import stages_of

    stages = stages_of(pipeline_named(common.load_settings(), name))
    if stage not in stages:
        raise DeclarationError("There is no such stage.", where=name, got=stage, fix=f"one of {', '.join(stages)}")
    version = stages[stage].version
    console = common.output()
    console.print(f"[bold]{name}/{stage}[/bold]  code version {version.value}")
    for title, values in (
        ("modules", version.modules),
        ("libraries", version.libraries),
        ("parameters", version.params),
    ):
        console.print(f"[bold]{title}[/bold]" if values else f"[bold]{title}[/bold]  none")
        for key, value in values.items():
            console.print(f"  {key}  {escape(str(value))}", soft_wrap=True)
