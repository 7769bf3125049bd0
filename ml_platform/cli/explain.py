"""`ml-platform explain`: what a stage's code version is made of."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """[bold]Examples[/bold]

  ml-platform explain nyc_flights features               the files, libraries and parameters behind its results
  ml-platform explain nyc_flights features --functions   down to the functions, with a hash of each

What is not listed counts for nothing: tests, READMEs, other pipelines. Neither do comments, docstrings and formatting
of what is listed. `Pipeline(versions={"features": "3"})` sets a version by hand."""


def explain(
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="One of its stages, such as features.")],
    functions: Annotated[bool, typer.Option("--functions", help="Show the functions of each file too.")] = False,
) -> None:
    """Show what went into a stage's code version: edit any of it, and its artifacts are stale.

    What is not listed does not count. Not followed: files and modules whose names are computed (f-strings, joined
    texts), files that only a parameter or the environment names, patterns such as *.json in another package, files
    farther away than beside the outermost package, and what compiled modules import.
    """
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

    def line(text: str, value: object, indent: str = "  ") -> None:
        console.print(f"{indent}{escape(text)}  {escape(str(value))}", soft_wrap=True)

    console.print(f"[bold]{name}/{stage}[/bold]  code version {version.value}")
    if version.pin is not None:
        console.print(f"[bold]version[/bold]  set by hand: {escape(version.pin)}; its code and libraries do not count")
    for root in version.roots:
        line("begins at", root)
    if version.pin is None:
        console.print(f"[bold]files[/bold]{'' if version.modules else '  none'}")
        for module, digest in sorted(version.modules.items(), key=lambda item: version.file(item[0])):
            line(version.file(module), digest[:12])
            for part, its in version.parts_of(module).items() if functions else ():
                line(part, its[:12], indent="      ")
        console.print(f"[bold]libraries[/bold]{'' if version.libraries else '  none'}")
        for library, installed in version.libraries.items():
            line(library, installed)
    console.print(f"[bold]parameters[/bold]{'' if version.params else '  none'}")
    for parameter, value in version.params.items():
        line(parameter, value)
