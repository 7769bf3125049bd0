"""`ml-platform list`: the declared pipelines, their feeds, and what has landed."""

from __future__ import annotations

from collections.abc import Collection


def list_pipelines() -> None:
    """Show the declared pipelines, their sources, and what has landed."""
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli import common
    from ml_platform.discovery import pipelines
    from ml_platform.landing import REFERENCES

    settings = common.load_settings()
    landing = common.open_landing(settings)
    console = common.output()
    declared = pipelines(settings)
    if not declared:
        console.print("No pipeline is declared; `ml-platform new NAME` writes one.")
    for pipeline in declared.values():
        console.print(f"[bold]{pipeline.name}[/bold]  {escape(pipeline.description)}")
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        for source in pipeline.sources:
            batches = landing.files(pipeline, source.name, source.format)
            table.add_row("source", source.name, source.format, escape(_span(batches)))
        for reference in pipeline.references:
            tables = landing.files(pipeline, REFERENCES, reference.format)
            landed = "landed" if reference.name in tables else "not landed"
            table.add_row("reference", reference.name, reference.format, landed)
        features = f"{len(pipeline.features.columns)} features"
        learns = f"{features}, {pipeline.recipe.model}" if pipeline.recipe else features
        table.add_row("learns", pipeline.label, pipeline.task, escape(learns))
        for name, recipe in pipeline.candidates.items():
            table.add_row("candidate", name, pipeline.choose, escape(recipe.model))
        if (scoring := pipeline.scoring) is not None:
            when = "again with each champion" if scoring.rescore else "once"
            table.add_row("scores", "every batch", when, "by the champion, in the stage predictions")
        console.print(table)


def _span(batches: Collection[str]) -> str:
    if not batches:
        return "nothing landed"
    return f"{len(batches)} batches, {min(batches)} to {max(batches)}"
