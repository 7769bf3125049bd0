"""`ml-platform`: puts the commands together, and prints the platform's errors as what they say.

Nothing heavy is imported here or at the top of a command's module: `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ml_platform.cli import (
    canary,
    check,
    doctor,
    explain,
    gates,
    gc,
    impact,
    land,
    lineage,
    listing,
    models,
    new,
    plan,
    reproduce,
    run,
    show_model,
    sweep,
    ui,
    waive,
    withdraw,
)
from ml_platform.errors import PlatformError, RegistryError, StoreError

ABOUT = """Train models from data that lands in batches, and never do the same work twice.

A pipeline is declared in a folder under ml_platform/pipelines: its sources, schemas, features, model and gates.
This command brings data in, runs the chain from landing to a registered model, and shows it."""

EXAMPLES = """[bold]Begin here[/bold]

  ml-platform doctor             is this machine ready? if not, what to do
  ml-platform land nyc_flights   put sample data where data lands
  ml-platform run nyc_flights    do what is not done yet, up to a model
  ml-platform ui                 look at it in the browser

[bold]Then[/bold]

  ml-platform run nyc_flights --batches 2013-06-01..2013-06-07
  ml-platform land nyc_flights day.parquet --source flights --batch 2013-06-07
  ml-platform plan nyc_flights          what a run would do, and why
  ml-platform models list nyc_flights   its versions, and the champion
  ml-platform new churn                 a working pipeline of your own

[bold]Where things are[/bold]

  Everything is kept in ./.ml_platform, or where ML_PLATFORM_HOME says.
  A command ends with 0 when all is well, 1 when something failed or was away,
  2 when it was asked wrongly; `plan` also where there is something to do.
  The README lists all settings."""

app = typer.Typer(
    name="ml-platform",
    help=ABOUT,
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=True,
)

DATA, LOOK, MACHINE = "Data and models", "Look at it", "This machine"
app.command("run", rich_help_panel=DATA, epilog=run.EXAMPLES)(run.run)
app.command("land", rich_help_panel=DATA, epilog=land.EXAMPLES)(land.land)
app.command("check", rich_help_panel=DATA, epilog=check.EXAMPLES)(check.check)
app.command("canary", rich_help_panel=DATA, epilog=canary.EXAMPLES)(canary.canary)
app.command("new", rich_help_panel=DATA, epilog=new.EXAMPLES)(new.new)
app.command("waive", rich_help_panel=DATA, epilog=waive.WAIVE_EXAMPLES)(waive.waive)
app.command("withdraw", rich_help_panel=DATA, epilog=withdraw.EXAMPLES)(withdraw.withdraw)
app.command("plan", rich_help_panel=LOOK, epilog=plan.EXAMPLES)(plan.plan)
app.command("gates", rich_help_panel=LOOK, epilog=gates.EXAMPLES)(gates.gates)
app.command("explain", rich_help_panel=LOOK, epilog=explain.EXAMPLES)(explain.explain)
app.command("impact", rich_help_panel=LOOK, epilog=impact.EXAMPLES)(impact.impact)
app.command("lineage", rich_help_panel=LOOK, epilog=lineage.EXAMPLES)(lineage.lineage)
app.command("ui", rich_help_panel=LOOK, epilog=ui.EXAMPLES)(ui.ui)
app.command("waivers", rich_help_panel=LOOK, epilog=waive.WAIVERS_EXAMPLES)(waive.waivers)
models.app.command("show", epilog=show_model.EXAMPLES)(show_model.show)
models.app.command("reproduce", epilog=reproduce.EXAMPLES)(reproduce.reproduce)
app.add_typer(models.app, rich_help_panel=DATA)
app.command("list", rich_help_panel=LOOK)(listing.list_pipelines)
app.command("gc", rich_help_panel=MACHINE, epilog=gc.EXAMPLES)(gc.gc)
app.command("sweep", rich_help_panel=MACHINE, epilog=sweep.EXAMPLES)(sweep.sweep)
app.command("doctor", rich_help_panel=MACHINE)(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("ml-platform"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    context.find_root().obj = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends with SystemExit. An error of the platform shows no traceback, and ends with 1
    where something was away or broken, with 2 where the command was asked wrongly."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # People add --debug to the end of the line that has just failed, and that is where it should work too.
    debug = "--debug" in words
    if debug:
        words = ["--debug", *(word for word in words if word != "--debug")]
    try:
        app(args=words, prog_name="ml-platform")
    except PlatformError as error:
        if debug:
            raise
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(1 if isinstance(error, StoreError | RegistryError) or error.passing else 2)
