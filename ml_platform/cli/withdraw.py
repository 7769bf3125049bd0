"""`ml-platform withdraw`: take a batch out of training, or put it back."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """[bold]Examples[/bold]

  ml-platform withdraw nyc_flights 2013-02-09 --reason "the airline asked us to delete it"
  ml-platform withdraw nyc_flights 2013-02-09 --revoke --reason "another day was meant"

It holds for the batch, whatever lands of it, on all machines that share the store.
The archive keeps its bytes. `ml-platform waivers` lists who withdrew what, and why."""


def withdraw(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="The batch to leave out.")],
    reason: Annotated[str, typer.Option(help="Why it is left out, or no longer is. It must be said.")] = "",
    by: Annotated[str, typer.Option(metavar="NAME", help="Who says so. Default: the user of this machine.")] = "",
    revoke: Annotated[bool, typer.Option("--revoke", help="Put the batch back.")] = False,
) -> None:
    """Take a batch out of training, by name and with a reason."""
    from rich.markup import escape

    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named
    from ml_platform.stages import stages_of, withdrawing
    from ml_platform.stages.opening import chain_of

    settings = common.load_settings()
    chain = chain_of(stages_of(pipeline_named(settings, name)), settings)
    by = by or common.user()
    if revoke:
        withdrawing.restore(chain, batch, by=by, reason=reason)
        told = f"{batch} is no longer withdrawn.\nThe next `ml-platform run {name}` takes it in again."
    else:
        given = withdrawing.withdraw(chain, batch, by=by, reason=reason)
        told = f"From now on {given.describe()}\nThe next `ml-platform run {name}` trains without it."
    common.output().print(escape(told), soft_wrap=True)
