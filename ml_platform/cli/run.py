"""`ml-platform run`: everything that is not done yet, from landing to a registered model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.summary import RunSummary

EXAMPLES = """[bold]Examples[/bold]

  ml-platform run                      every pipeline
  ml-platform run nyc_flights          one of them, all batches
  ml-platform run nyc_flights --batches 2013-06-01..2013-06-07
  ml-platform run nyc_flights --batches 2013-06-01,2013-06-03
  ml-platform run nyc_flights --select validated_batch

Stages whose inputs and code did not change are skipped. A batch that a gate
rejects does not stop the others. The run is one Dagster run: `ml-platform ui`
shows it while it goes on. It ends with 1 where something failed."""


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
) -> None:
    """Run the chain: whatever is not done yet, up to the registered model."""
    from ml_platform.cli import common
    from ml_platform.cli.summary import show
    from ml_platform.discovery import pipeline_named, pipelines

    settings = common.load_settings()
    chosen = [pipeline_named(settings, name) for name in names] if names else list(pipelines(settings).values())
    stages = [stage.strip() for text in select or () for stage in text.split(",") if stage.strip()] or None
    console = common.output()
    well = True
    for pipeline in chosen:
        summary = _run(pipeline, settings, batches or [], stages)
        show(summary, pipeline.task, settings, console)
        well &= summary.ok
    raise typer.Exit(0 if well else 1)


def _run(pipeline: Pipeline, settings: Settings, batches: list[str], stages: list[str] | None) -> RunSummary:
    """Run one pipeline, with its progress on standard error."""
    from ml_platform.cli import common
    from ml_platform.cli.batches import landed_batches, selected
    from ml_platform.cli.progress import shown

    # Dagster says of its own preview functions that they may change; its version is pinned.
    warnings.filterwarnings("ignore", message=r"(?s).*is currently in (preview|beta)")
    wanted = selected(batches, pipeline, lambda: landed_batches(pipeline, common.open_landing(settings)))
    with shown(common.notices(), title=pipeline.name) as on_progress:
        # Says at once what it does: Dagster alone takes seconds to import.
        from ml_platform.stages.run import run_pipeline

        return run_pipeline(pipeline, settings, batches=wanted, select=stages, on_progress=on_progress)
