"""`ml-platform land`: puts data where the platform looks for it, each file whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.errors import LandingError

if TYPE_CHECKING:
    import pyarrow

    from ml_platform.landing import LandedFile, Landing
    from ml_platform.pipeline import Pipeline, Reference, Source
    from ml_platform.settings import Settings

EXAMPLES = """[bold]Examples[/bold]

  ml-platform land                     every pipeline's sample data
  ml-platform land nyc_flights         of one; what is there already stays
  ml-platform land nyc_flights day.parquet --source flights --batch 2013-06-07
  ml-platform land nyc_flights planes.parquet --source planes

A reference table, such as planes, has no batch. A file is seen whole or not at all."""


def land(
    name: Annotated[str | None, typer.Argument(metavar="PIPELINE", help="Default: all that have sample data.")] = None,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A Parquet or CSV file to bring in.")] = None,
    source: Annotated[str | None, typer.Option(help="With FILE: the source or reference it belongs to.")] = None,
    batch: Annotated[str | None, typer.Option(help="With FILE: the batch it is.")] = None,
) -> None:
    """Bring data in: the pipeline's sample data, or a file of yours."""
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named, pipelines

    settings = common.load_settings()
    landing = common.open_landing(settings)
    if file is not None:
        assert name is not None  # the first argument comes before the second
        pipeline = pipeline_named(settings, name)
        url = _put_file(landing, pipeline, file, source, batch)
        _announce(pipeline, settings)
        common.output().print(f"Landed {url}", markup=False, soft_wrap=True)
        return
    if source or batch:
        raise LandingError(
            "--source and --batch go with a file.", fix="ml-platform land PIPELINE FILE --source S --batch B"
        )
    if name is not None:
        chosen = [pipeline_named(settings, name)]
    else:
        chosen = [pipeline for pipeline in pipelines(settings).values() if pipeline.sample_data]
    for pipeline in chosen:
        landed, there = _put_samples(landing, pipeline)
        _announce(pipeline, settings)
        common.output().print(
            f"{pipeline.name}: {landed} files landed, {there} were there already, in {settings.landing}",
            markup=False,
            soft_wrap=True,
        )


def _announce(pipeline: Pipeline, settings: Settings) -> None:
    """Make batches with names of their own known to Dagster, so that its pages offer them. Days exist by themselves."""
    from ml_platform.pipeline import NamedBatches

    if isinstance(pipeline.batches, NamedBatches):
        from ml_platform.instance import prepare_instance
        from ml_platform.stages import stages_of
        from ml_platform.stages.assets import register_batches
        from ml_platform.stages.opening import chain_of

        with prepare_instance(settings) as instance:
            register_batches(chain_of(stages_of(pipeline), settings, instance), instance)


def _put_file(landing: Landing, pipeline: Pipeline, file: Path, source: str | None, batch: str | None) -> str:
    """Check what was asked and put the file. Returns where it landed."""
    from ml_platform.landing import REFERENCES

    feed = _feed(pipeline, source)
    is_source = feed in pipeline.sources
    if is_source and batch is None:
        raise LandingError("A source's file is one batch.", where=f"source {feed.name!r}", fix="name it with --batch")
    if not is_source and batch is not None:
        raise LandingError(
            "A reference table has no batches.", where=f"reference {feed.name!r}", fix="leave --batch away"
        )
    if file.suffix.lower() != f".{feed.format}":
        raise LandingError(
            f"The feed {feed.name!r} is declared as {feed.format}.",
            got=file.name,
            fix=f"convert it, or rename it to *.{feed.format} if that is what is in it",
        )
    folder, name = (REFERENCES, feed.name) if batch is None else (feed.name, batch)
    return landing.put(pipeline, folder, name, file, feed.format)


def _feeds(pipeline: Pipeline) -> dict[str, Source | Reference]:
    """Sources and references by name."""
    feeds: tuple[Source | Reference, ...] = (*pipeline.sources, *pipeline.references)
    return {feed.name: feed for feed in feeds}


def _feed(pipeline: Pipeline, name: str | None) -> Source | Reference:
    feeds = _feeds(pipeline)
    if name is None and len(feeds) == 1:
        return next(iter(feeds.values()))
    if name not in feeds:
        raise LandingError(
            "Which source is it?" if name is None else "The pipeline has no such source.",
            where=f"pipeline {pipeline.name!r}, --source",
            got=name,
            fix=f"one of {', '.join(feeds)}",
        )
    return feeds[name]


def _put_samples(landing: Landing, pipeline: Pipeline) -> tuple[int, int]:
    """Land the pipeline's sample data. Returns how many files were landed, and how many were there already."""
    from rich.progress import track

    from ml_platform.cli import common
    from ml_platform.landing import REFERENCES
    from ml_platform.naming import load_named

    if pipeline.sample_data is None:
        raise LandingError(
            "The pipeline has no sample data.",
            where=f"pipeline {pipeline.name!r}",
            fix=f"name a file: ml-platform land {pipeline.name} FILE --source S --batch B",
        )
    feeds = _feeds(pipeline)
    tables: Iterator[tuple[str, str | None, pyarrow.Table]] = load_named(pipeline.sample_data)()
    landed: dict[tuple[str, str], Mapping[str, LandedFile]] = {}
    new = same = 0
    console = common.notices()
    with tempfile.TemporaryDirectory() as scratch:
        for name, batch, table in track(
            tables, f"Landing {pipeline.name}", console=console, disable=not console.is_terminal
        ):
            if name not in feeds:
                raise LandingError("The sample data has an unknown feed.", where=pipeline.sample_data, got=name)
            format_ = feeds[name].format
            folder, file = (REFERENCES, name) if batch is None else (name, batch)
            if (folder, format_) not in landed:
                landed[folder, format_] = landing.files(pipeline, folder, format_)
            data = encoded(table, format_)
            if _is_same(landing, landed[folder, format_].get(file), data, Path(scratch) / "landed"):
                same += 1
            else:
                landing.put(pipeline, folder, file, data, format_)
                new += 1
    return new, same


def encoded(table: pyarrow.Table, format_: str) -> bytes:
    """The table as a file: the same table gives the same bytes."""
    import io

    sink = io.BytesIO()
    if format_ == "csv":
        from pyarrow import csv

        csv.write_csv(table, sink)
    else:
        from pyarrow import parquet

        parquet.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _is_same(landing: Landing, landed: LandedFile | None, data: bytes, scratch: Path) -> bool:
    """Whether the very same bytes have landed: then the file keeps its time, and nothing below it has to look again."""
    if landed is None or landed.size != len(data):
        return False
    return landing.snapshot(landed, scratch) == hashlib.sha256(data).hexdigest()
