"""`ml-platform gates`: what every gate has said of every batch, as a heat map, and as a page with distributions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.errors import SetupError

EXAMPLES = """[bold]Examples[/bold]

  ml-platform gates nyc_flights                     batches by checks, and why what was rejected
  ml-platform gates nyc_flights --failing           only where something is told
  ml-platform gates nyc_flights --batches 2013-02-01..2013-02-28
  ml-platform gates nyc_flights --html gates.html   with failing rows, and distributions beside those before

The page is one file without scripts, and asks nothing of a network."""


def gates(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    batches: Annotated[
        list[str] | None, typer.Option(metavar="A..B | A,B,C", help="Only these batches. Default: all.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page for a browser too.")] = None,
    failing: Annotated[bool, typer.Option("--failing", help="Leave out the batches of which nothing is told.")] = False,
) -> None:
    """Show what the gates said: a heat map of batches and checks, and why."""
    from ml_platform.cli import common, heat_map
    from ml_platform.cli.batches import known_batches, selected
    from ml_platform.discovery import pipeline_named
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of
    from ml_platform.stages.verdicts import batch_verdicts, stage_verdicts

    settings = common.load_settings()
    pipeline = pipeline_named(settings, name)
    wanted = selected(batches or [], pipeline, partial(known_batches, pipeline, settings))
    chain = chain_of(stages_of(pipeline), settings)
    verdicts = batch_verdicts(chain, wanted)
    stages = stage_verdicts(chain)
    known = {batch for batch in chain.batches() if wanted is None or batch in wanted}
    waiting = len(known - {verdict.batch for verdict in verdicts})
    if html is not None:
        from ml_platform.cli.page import render

        page = render(chain, verdicts, stages, failing=failing, waiting=waiting)
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as error:
            raise SetupError("The page cannot be written.", where=html, got=error, fix="name another file") from error
        common.notices().print(f"Wrote {html}", markup=False, soft_wrap=True)
    heat_map.show(pipeline, verdicts, stages, common.output(), failing=failing, waiting=waiting)
