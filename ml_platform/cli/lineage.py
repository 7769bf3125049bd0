"""`ml-platform lineage`: the graph of one model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.cli.show_model import NAME, found
from ml_platform.errors import SetupError

EXAMPLES = """[bold]Examples[/bold]

  ml-platform lineage nyc_flights@champion                              as text for Mermaid
  ml-platform lineage nyc_flights@3 --format html --out lineage.html    as a page, every hash in it

GitHub, GitLab and many editors draw Mermaid where a Markdown block is marked so. The page
needs neither a network nor a server."""


class Format(StrEnum):
    """How a graph is written."""

    MERMAID = "mermaid"
    HTML = "html"


def lineage(
    name: Annotated[str, NAME],
    format_: Annotated[Format, typer.Option("--format", help="Text for Mermaid, or a page.")] = Format.MERMAID,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write it. Default: print it.")] = None,
) -> None:
    """Draw what a registered version was made of, from what landed to its aliases."""
    from ml_platform.cli import common
    from ml_platform.provenance.graph import graph, mermaid, page

    version, record, _ = found(common.load_settings(), name)
    drawn = graph(record, version)
    text = page(drawn) if format_ is Format.HTML else mermaid(drawn)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError("The graph cannot be written.", where=out, got=error, fix="name another file") from error
    common.notices().print(f"Written to {out}", markup=False, soft_wrap=True)
