"""`ml-platform models show`: where a version came from, as a tree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain

EXAMPLES = """[bold]Examples[/bold]

  ml-platform models show nyc_flights@champion          where it came from, down to the landed bytes
  ml-platform models show nyc_flights@3 --json          the whole record, every hash, for a program"""

WIDE = 240
"""Characters of a line that goes to a file or another program: a hash stays in one piece."""
NAME = typer.Argument(
    metavar="NAME@VERSION",
    help="A registered model, and which version: its number or an alias. Without an @, the champion.",
)


def show(
    name: Annotated[str, NAME],
    as_json: Annotated[bool, typer.Option("--json", help="The whole record, as JSON.")] = False,
) -> None:
    """Show what a version was made of and with: data, verdicts, code, commits, libraries, hashes."""
    from ml_platform.cli import common

    settings = common.load_settings()
    version, record, chain = found(settings, name)
    if as_json:
        typer.echo(json.dumps(record, indent=1))
        return
    from ml_platform.provenance.tree import tree

    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    title = f"{version.name} version {version.version}{aliases}"
    console = common.output()
    shown = tree(record, title, decided(version, chain))
    console.print(shown, width=None if console.is_terminal else WIDE)


def found(settings: Settings, name: str) -> tuple[RegisteredVersion, dict[str, Any], Chain]:
    """A registered version by its name, with its record, and its pipeline as it stands."""
    from ml_platform.discovery import pipeline_named
    from ml_platform.provenance.registered import record_of, split_name, version_named
    from ml_platform.registry.connection import Connection
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of

    chain = chain_of(stages_of(pipeline_named(settings, split_name(name)[0])), settings)
    connection = Connection(settings.mlflow)
    version = version_named(connection, name)
    return version, record_of(connection, version, chain), chain


def decided(version: RegisteredVersion, chain: Chain) -> list[str]:
    """What was decided about a version's model, a sentence each, the oldest first."""
    from ml_platform.registry.trail import decisions_of

    about = decisions_of(chain.store, version.name, chain.settings.mlflow, version.model)
    return [decision.describe() for decision in about]
