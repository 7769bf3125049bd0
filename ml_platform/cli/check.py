"""`ml-platform check`: the data gate without a run. What it says goes to standard output, and nothing else does."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ml_platform.errors import LandingError, PlatformError

if TYPE_CHECKING:
    from ml_platform.gates.rendering import CheckedFile
    from ml_platform.pipeline import Pipeline, Source
    from ml_platform.settings import Settings
    from ml_platform.stages.checking import Candidate
    from ml_platform.stages.histories import History

EXAMPLES = """[bold]Examples[/bold]

  ml-platform check nyc_flights --batch 2013-02-09               as a run would judge it
  ml-platform check nyc_flights --batch 2013-06-01..2013-06-07
  ml-platform check nyc_flights --path day.parquet --source flights
  ml-platform check nyc_flights --path flights/2013-06-07.parquet --against earlier
  ml-platform check nyc_flights --path flights/*.parquet --format github

Nothing is materialized or recorded. Ends with 0 where all is accepted, 1 where
something is rejected, 2 where it could not be found out. What a batch is compared with:
the accepted batches before it in the store; with --against FOLDER the files there,
<batch>.parquet or <source>/<batch>.parquet; with --against none nothing."""

ACCEPTED, REJECTED, NOT_RUN = 0, 1, 2


def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Further files, as the shell's *.parquet gives them."),
    ] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(metavar="B | A..B", help="A batch that has landed, or was taken; with --path, what the file is."),
    ] = None,
    path: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A file, wherever it is.")] = None,
    source: Annotated[
        str | None, typer.Option(help="With --path: whose file it is, where its folder does not tell.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FOLDER | none", help="Compare with these files, not with the store's.")
    ] = None,
    format_: Annotated[
        Literal["table", "github", "junit", "json"],
        typer.Option("--format", help="For people, or for GitHub, for JUnit's readers, for programs."),
    ] = "table",
) -> None:
    """Say what the data gate would say of a batch or a file, without running anything."""
    try:
        checked = _checked(name, batch or [], [*(path or []), *(more or [])], source, against)
        _print(name, checked, format_)
    except (PlatformError, OSError) as error:
        if context.find_root().obj:  # --debug
            traceback.print_exc()
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        raise typer.Exit(NOT_RUN) from error
    except Exception as error:  # a fault of the platform is no verdict on the data
        traceback.print_exc()
        raise typer.Exit(NOT_RUN) from error
    raise typer.Exit(ACCEPTED if all(file.report.accepted for file in checked) else REJECTED)


def _checked(
    name: str, batches: list[str], paths: list[Path], source: str | None, against: str | None
) -> list[CheckedFile]:
    """Find what is to be checked, and judge it."""
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named
    from ml_platform.stages.checking import check_batches

    settings = common.load_settings()
    pipeline = pipeline_named(settings, name)
    if source is not None and not paths:
        raise LandingError("--source goes with --path.", got=source)
    if not (batches or paths):
        raise LandingError("What is to be checked?", fix="name a batch (--batch) or a file (--path)")
    checked: list[CheckedFile] = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ml-platform-check-")))
        if paths:
            candidates = _of_paths(pipeline, paths, source, batches)
        else:
            candidates = _of_batches(pipeline, settings, batches, scratch)
        history = _history(pipeline, settings, against, candidates)
        for files in check_batches(pipeline, candidates, history, memory_mib=settings.gate_memory):
            checked += files
            if len(candidates) > 1 and sys.stderr.isatty():
                common.notices().print(f"{len(checked)} files checked", end="\r")
        for remark in history.remarks:
            common.notices().print(remark, markup=False, soft_wrap=True)
    return checked


def _of_batches(pipeline: Pipeline, settings: Settings, texts: list[str], scratch: Path) -> list[Candidate]:
    """Batches that have landed or were taken."""
    from ml_platform.cli.batches import known_batches, selected
    from ml_platform.stages import stages_of
    from ml_platform.stages.checking import landed_candidate
    from ml_platform.stages.opening import chain_of

    names = selected(texts, pipeline, partial(known_batches, pipeline, settings), "--batch") or set()
    chain = chain_of(stages_of(pipeline), settings)
    return [landed_candidate(chain, batch, scratch) for batch in sorted(names)]


def _of_paths(pipeline: Pipeline, paths: Sequence[Path], source: str | None, batches: list[str]) -> list[Candidate]:
    """Files that are named: those of one batch, each of another source, are judged together."""
    from ml_platform.cli.batches import selected
    from ml_platform.stages.checking import Candidate

    given = selected(batches, pipeline, lambda: (), "--batch") or set()
    if len(given) > 1:
        raise LandingError("A file is of one batch.", where="--batch", got=", ".join(sorted(given)))
    found: list[tuple[str, dict[str, Path]]] = []
    for path in paths:
        if not path.is_file():
            raise LandingError("There is no such file.", where="--path", got=path)
        whose = _source(pipeline, path, source)
        named = path.stem if pipeline.batches.accepts(path.stem) and path.stem != whose.name else ""
        batch = next(iter(given), named)
        together = next((files for name, files in found if name == batch and batch and whose.name not in files), None)
        if together is None:
            found.append((batch, together := {}))
        together[whose.name] = path
    return [
        Candidate(batch=batch, files=dict(files), shown={name: str(path) for name, path in files.items()})
        for batch, files in found
    ]


def _source(pipeline: Pipeline, path: Path, name: str | None) -> Source:
    """Whose file it is: as --source says, as its folder or its name says, or of the only source."""
    sources = {source.name: source for source in pipeline.sources}
    told = [name] if name else [each for each in (path.absolute().parent.name, path.stem) if each in sources]
    whose = sources.get(told[0]) if told else next(iter(sources.values())) if len(sources) == 1 else None
    if whose is None:
        raise LandingError(
            "The pipeline has no such source." if name else "Which source is it?",
            where=f"pipeline {pipeline.name!r}, {path}",
            got=name,
            fix=f"--source, one of {', '.join(sources)}",
        )
    if path.suffix.lower() != f".{whose.format}":
        raise LandingError(
            f"The source {whose.name!r} is declared as {whose.format}, so this file could not land.",
            where=path,
            got=path.suffix,
            fix=f"name a .{whose.format} file, or another source",
        )
    return whose


def _history(pipeline: Pipeline, settings: Settings, against: str | None, candidates: Sequence[Candidate]) -> History:
    """What they are compared with."""
    from ml_platform.stages.histories import FolderHistory, NoHistory, StoreHistory

    if against == "none":
        return NoHistory()
    if against is not None:
        sources = dict.fromkeys(name for candidate in candidates for name in candidate.files)
        return FolderHistory(Path(against), pipeline, sources, settings.gate_memory)
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of

    return StoreHistory(chain_of(stages_of(pipeline), settings))


def _print(pipeline: str, checked: Sequence[CheckedFile], format_: str) -> None:
    """What was found, with paths relative to the folder that the command was called in."""
    from dataclasses import replace

    from ml_platform.cli import common
    from ml_platform.gates.rendering import FORMATS
    from ml_platform.gates.rendering.table import show

    here = Path.cwd()
    checked = [replace(file, path=_relative(file.path, here)) for file in checked]
    if format_ == "table":
        common.output().print(show(checked))
    else:
        typer.echo(FORMATS[format_](pipeline, checked), nl=False)


def _relative(path: str, here: Path) -> str:
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
