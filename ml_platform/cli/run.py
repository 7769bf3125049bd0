"""`ml-platform run`: everything that is not done yet, from landing to a registered model."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.run import Request
    from ml_platform.stages.summary import RunSummary

EXAMPLES = """[bold]Examples[/bold]

  ml-platform run                      every pipeline
  ml-platform run nyc_flights          one of them, all batches
  ml-platform run nyc_flights --batches 2013-06-01..2013-06-07
  ml-platform run nyc_flights --batches 2013-06-01,2013-06-03
  ml-platform run nyc_flights --select validated_batch
  ml-platform run nyc_flights --set train.epochs=5   with that value
  ml-platform run nyc_flights --dry-run              what it would do

Stages whose inputs and code did not change are skipped; what was built before
is published again. A batch that a gate rejects does not stop the others.

The run is one Dagster run: `ml-platform ui` shows it while it goes on. Where
the UI is up, the run takes its turn in its queue. What another run builds at
this moment is waited for and shared. It ends with 1 where something failed."""


def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="Pipelines by name. Default: all of them.")
    ] = None,
    batches: Annotated[
        list[str] | None,
        typer.Option(metavar="A..B | A,B,C", help="Only these batches. Default: all that landed."),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Only this stage; repeat it for more. Default: all that are needed."),
    ] = None,
    replaced: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Replace a declared value in this run: train.epochs=5."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build again what is known; a result that differs takes its place.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done. Ends with 2 where there is something.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue/--no-queue", help="Go through the queue of a Dagster server that is up.")
    ] = True,
) -> None:
    """Run the chain: whatever is not done yet, up to the registered model."""
    from ml_platform.cli import common
    from ml_platform.cli.batches import known_batches, selected
    from ml_platform.discovery import pipeline_named, pipelines
    from ml_platform.stages.run import Request

    settings = common.load_settings()
    chosen = [pipeline_named(settings, name) for name in names] if names else list(pipelines(settings).values())
    stages = [stage.strip() for text in select or () for stage in text.split(",") if stage.strip()] or None
    well = True
    for pipeline in chosen:
        wanted = selected(batches or [], pipeline, partial(known_batches, pipeline, settings))
        request = Request(batches=wanted, select=stages, force=force, replaced=replaced or ())
        well &= _plan(pipeline, settings, request) if dry_run else _run(pipeline, settings, request, queue=queue).ok
    raise typer.Exit(0 if well else 2 if dry_run else 1)


def _plan(pipeline: Pipeline, settings: Settings, request: Request) -> bool:
    """Show what a run would do. Returns whether that is nothing."""
    from ml_platform.cli import common
    from ml_platform.cli.plan import show as show_plan
    from ml_platform.stages.run import plan_pipeline

    found = plan_pipeline(pipeline, settings, request)
    show_plan(pipeline.name, found, common.output())
    return not any(stage.to_do for stage in found)


def _run(pipeline: Pipeline, settings: Settings, request: Request, *, queue: bool) -> RunSummary:
    """Run one pipeline, with its progress on standard error, and show what it came to."""
    from ml_platform.cli import common
    from ml_platform.cli.progress import shown
    from ml_platform.cli.summary import show
    from ml_platform.stages.follow import Left
    from ml_platform.stages.run import run_pipeline

    # Dagster says of its own preview functions that they may change; its version is pinned.
    warnings.filterwarnings("ignore", message=r"(?s).*is currently in (preview|beta)")
    try:
        with shown(common.notices(), title=pipeline.name) as on_progress:
            summary = run_pipeline(pipeline, settings, request, on_progress=on_progress, queue=queue)
    except Left as left:  # by Ctrl-C, which ends the command as ever
        common.notices().print(str(left), markup=False, soft_wrap=True)
        raise
    show(summary, pipeline.task, settings, common.output())
    return summary
