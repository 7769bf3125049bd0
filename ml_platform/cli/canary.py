"""`ml-platform canary`: the whole chain on about a hundredth of the data, elsewhere, before it is let loose on all."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.canary import Canary

EXAMPLES = """[bold]Examples[/bold]

  ml-platform canary nyc_flights                the chain on 1 % of the data
  ml-platform canary nyc_flights --share 0.05   on more of it
  ml-platform canary nyc_flights --batches 2    one to learn from, one held out

It takes what has landed and was not rejected or withdrawn, or the sample data where
nothing has. At least 6 batches and 250 rows of each file are taken, if there are so
many: of little data that is far more than 1 %, and it says how much. A throw-away
folder has its own landing place, store, runs and registry; yours are not touched. Ends
with 0 only where every stage completed, up to a registered model. Metrics are told,
and hold nothing back: so few rows say nothing of how good a model is."""

SHOWN = 6
"""Batches of a window that are named."""


def canary(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of all rows, about how many to take; of little data more.")
    ] = 0.01,
    batches: Annotated[
        int | None,
        typer.Option(
            min=2, help="How many batches to take. Default: the share of them, and at least 4 and 2 held out."
        ),
    ] = None,
) -> None:
    """Try the whole chain on about 1 % of the data, in a folder that is thrown away."""
    from ml_platform.canary import run_canary
    from ml_platform.cli import common
    from ml_platform.cli.progress import shown
    from ml_platform.discovery import pipeline_named

    settings = common.load_settings()
    pipeline = pipeline_named(settings, name)
    # Dagster says of its own preview functions that they may change; its version is pinned.
    warnings.filterwarnings("ignore", message=r"(?s).*is currently in (preview|beta)")
    with shown(common.notices(), title=f"canary of {name}") as on_progress:
        found = run_canary(pipeline, settings, share=share, batches=batches, on_progress=on_progress)
    _show(found, common.output())
    raise typer.Exit(1 if found.trouble else 0)


def _show(found: Canary, console: Console) -> None:
    """Print what was taken, what became of each stage, and what is wrong."""
    from rich.markup import escape

    from ml_platform.cli.summary import show_stages
    from ml_platform.words import few

    sample, summary = found.sample, found.summary
    rows = "; ".join(f"{source} {kept:,} of {sample.of_rows[source]:,} rows" for source, kept in sample.rows.items())
    console.print(
        f"[bold]Canary of {summary.pipeline}[/bold], about {sample.share:.1%} of {escape(sample.origin)}",
        soft_wrap=True,
    )
    left_out = f" (without {sample.left_out} rejected or withdrawn)" if sample.left_out else ""
    console.print(f"  {sample.taken} of {sample.batches} batches{left_out}: {rows}", soft_wrap=True)
    for word, names in (("learned from", sample.train), ("held out", sample.holdout)):
        console.print(f"  {word}: {escape(few(names, SHOWN))}", soft_wrap=True)
    show_stages(summary, console)
    for batch, reason in summary.rejected.items():
        console.print(f"[yellow]rejected[/yellow]  {escape(f'{batch}: {reason}')}", soft_wrap=True)
    for gate in found.gates:
        console.print(f"Told, not judged: {escape(str(gate).replace('FAILED', 'missed'))}", soft_wrap=True)
    for line in found.trouble:
        console.print(f"[red]Problem[/red]   {escape(line)}", soft_wrap=True)
    verdict = "[red]The canary died.[/red]" if found.trouble else "[green]Every stage completed.[/green]"
    console.print(f"{verdict} It took {summary.seconds:.0f} s; everything that it made is gone.")
