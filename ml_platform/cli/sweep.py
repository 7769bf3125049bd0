"""`ml-platform sweep`: remove training jobs on a cluster that nobody wants any more."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

EXAMPLES = """[bold]Examples[/bold]

  ml-platform sweep --dry-run     which jobs would go, and why
  ml-platform sweep               remove them

A job that runs on after its launcher died is joined by the next run. One that nobody follows goes
after an hour (`abandoned_seconds` in ML_PLATFORM_KUBERNETES), or after two minutes when the pipeline would
train another model by now. The sensor `abandoned_jobs` does the same every five minutes."""


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove training jobs on Kubernetes that nobody wants, and what jobs that are over left in the store."""
    from rich.markup import escape

    from ml_platform.automation import abandoned
    from ml_platform.cli import common
    from ml_platform.instance import prepare_instance

    settings = common.load_settings()
    if settings.launcher != "kubernetes":
        told = "Training runs on this machine (ML_PLATFORM_LAUNCHER=local): there is nothing to sweep."
        common.output().print(told, soft_wrap=True)
        return
    with prepare_instance(settings) as instance:
        found = abandoned.sweep(settings, instance, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, "swept": [asdict(each) for each in found]}, indent=1))
        return
    for each in found:
        verb = "Would remove" if dry_run else "Removed"
        common.output().print(escape(f"{verb} {each.what} of {each.pipeline}: {each.why}."), soft_wrap=True)
    if not found:
        common.output().print("Every job is wanted.")
