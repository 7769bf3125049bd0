"""`ml-platform models reproduce`: a version built once more from the bytes that landed, and compared."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.show_model import NAME, found
from ml_platform.errors import PlatformError, RefusedError, SetupError

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.pipeline import Pipeline
    from ml_platform.provenance.record import Record
    from ml_platform.provenance.reproduce import Reproduction
    from ml_platform.settings import Settings

EXAMPLES = """[bold]Examples[/bold]

  ml-platform models reproduce nyc_flights@champion
  ml-platform models reproduce nyc_flights@3 --keep /tmp/again    and look at what was built

The raw batches and references that the version's record names are checked by hash and land
in a work area of its own: with its own store, so that nothing built before is read, and its
own runs. The whole chain runs there up to the evaluation, with Spark and torchrun. What is
otherwise here (code, libraries, device) is said first. What is declared counts as it did
then, also what `run --set` had replaced.

Ends with 0 where every artifact has the same data version and the weights are the same
bytes, with 1 where something differs, with 2 where the model could not be built,
with 130 after Ctrl-C."""
INTERRUPTED = 130
"""What a shell says of a command that Ctrl-C has ended."""
CAUSES = 6
"""Changes of the code that are told of each stage."""


def reproduce(
    name: Annotated[str, NAME],
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Work in this folder, new or empty, and leave it.")
    ] = None,
) -> None:
    """Build a version once more from the bytes that landed, and say whether it is the same, stage by stage."""
    from ml_platform.cli import common

    try:
        raise typer.Exit(_reproduce(name, keep, common.load_settings(), common.output()))
    except PlatformError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(2) from error


def _reproduce(name: str, keep: Path | None, settings: Settings, console: Console) -> int:
    from ml_platform.cli import common
    from ml_platform.cli.progress import shown
    from ml_platform.provenance.declared import as_recorded
    from ml_platform.provenance.reproduce import reproduce

    version, record, chain = found(settings, name)
    pipeline = as_recorded(chain.pipeline, record)
    title = f"{version.name} version {version.version}"
    console.print(f"[bold]Building {title} once more[/], from {len(record['artifacts']['raw_batch'])} raw batches")
    _tell_differences(chain.pipeline, pipeline, record, settings, console)
    # Dagster says of its own preview functions that they may change; its version is pinned.
    warnings.filterwarnings("ignore", message=r"(?s).*is currently in (preview|beta)")
    work = nullcontext(_kept(keep)) if keep else tempfile.TemporaryDirectory(prefix="ml-platform-reproduce-")
    try:
        with work as folder, shown(common.notices(), title=title) as on_progress:
            came = reproduce(pipeline, record, settings, Path(folder), on_progress=on_progress)
    except KeyboardInterrupt:
        left = f"what was built by then is in {keep}" if keep else "what was built by then is removed"
        common.notices().print(f"Interrupted: {left}.", markup=False, soft_wrap=True)
        return INTERRUPTED
    _show(came, console)
    if keep:
        console.print(f"What was built is in {keep}.", markup=False, soft_wrap=True)
    return 0 if came.same else 1 if came.finished else 2


def _kept(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError("The folder cannot be made.", where=folder, got=error, fix="name another one") from error
    if any(folder.iterdir()):
        raise RefusedError("The folder is not empty.", where=folder, fix="name a new one: nothing known may be read")
    return str(folder.absolute())


def _tell_differences(now: Pipeline, then: Pipeline, record: Record, settings: Settings, console: Console) -> None:
    """What is otherwise here than it was, before anything starts."""
    from rich.markup import escape

    from ml_platform.provenance.declared import code_changes, commits, replaced
    from ml_platform.provenance.environment import differences
    from ml_platform.stages import stages_of
    from ml_platform.training.checkpoint import resumed

    for difference in differences(record, settings):
        console.print(f"  [yellow]differs[/]   {escape(str(difference))}", soft_wrap=True)
    for value in replaced(now, then):
        console.print(f"  [yellow]as then[/]   {escape(value)}", soft_wrap=True)
    changes = code_changes(stages_of(then), record)
    for stage, causes in changes.items():
        for cause in causes[:CAUSES]:
            console.print(f"  [yellow]code[/]      {stage}: {escape(cause.text)}", soft_wrap=True)
        if len(causes) > CAUSES:
            console.print(f"            and {len(causes) - CAUSES} more of {stage}")
    if changes:
        console.print(f"  To have the code of then, check out {escape(commits(record))}", soft_wrap=True)
    else:
        console.print("  The code is the same: every stage has the code version of then.")
    for each in record["training"].get("resumed_on", ()):  # older records have none
        told = f"{resumed.describe(each)}: {resumed.BYTES}"
        console.print(f"  [yellow]elastic[/]   training went on {escape(told)}", soft_wrap=True)
    if record["parent"]:
        told = f"{record['parent']['name']} {record['parent']['fingerprint']}"
        console.print(f"  It went on from another model's weights, which are taken as they are: {told}", soft_wrap=True)


def _show(came: Reproduction, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.words import few

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column, right in (("Stage", 0), ("artifacts", 1), ("same", 1), ("different", 1), ("absent", 1), ("which", 0)):
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for stage in came.stages:
        counts = (stage.same, len(stage.different), len(stage.absent))
        which = few([batch for batch in (*stage.different, *stage.absent) if batch])
        colour = "green" if stage.same == stage.artifacts else "red"
        table.add_row(
            f"[{colour}]{stage.name}[/]",
            str(stage.artifacts),
            *(str(count) if count else "-" for count in counts),
            escape(which),
        )
    console.print(table)
    for stage in came.stages:
        if stage.why:
            console.print(f"[yellow]{stage.name}[/] its gate says now: {escape(stage.why)}", soft_wrap=True)
    for problem in came.problems:
        console.print(f"[red]Problem[/]   {escape(problem)}", soft_wrap=True)
    console.print(f"Weights   {came.weights_then} then", soft_wrap=True)
    console.print(f"          {came.weights_now or 'none'} now", soft_wrap=True)
    verdict = (
        "[green]The same, to the byte.[/]"
        if came.same
        else "[red]It is not the same.[/]"
        if came.finished
        else "[red]It could not be built.[/]"
    )
    console.print(f"{verdict} It took {came.seconds:.0f} s.")
