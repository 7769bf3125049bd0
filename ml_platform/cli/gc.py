"""`ml-platform gc`: remove what nobody needs any more."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Collection

    from ml_platform.settings import Settings
    from ml_platform.store import Manifest
    from ml_platform.store.garbage import Collected

EXAMPLES = """[bold]Examples[/bold]

  ml-platform gc --dry-run             what would go, and how much that frees
  ml-platform gc                       remove it
  ml-platform gc --keep 7d             also artifacts that are younger than 30 days
  ml-platform gc nyc_flights           artifacts of this pipeline only
  ml-platform gc --cache 5G            also local copies of a remote store's files, down to 5 GiB

Never removed, however old: what a registered model, a published partition, a training job or the
present code's plan rests on, back to the files as they landed; anything of a pipeline that runs now;
and what was written within a day. Where the registry or Dagster cannot be asked, nothing is."""

_SECONDS = {"d": 86_400.0, "w": 7 * 86_400.0, "h": 3600.0}
_BYTES = {"M": 2**20, "G": 2**30, "T": 2**40}


def gc(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="Whose artifacts may go. Default: all.")
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="30d", help="How long an artifact stays that nothing needs. At least 1d.")
    ] = "30d",
    cache: Annotated[
        str | None, typer.Option(metavar="5G", help="Also trim local copies of a remote store's files to this size.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove temporary leftovers, and artifacts that nothing needs."""
    from ml_platform.cli import common

    keep_seconds = _amount(keep, _SECONDS, "--keep", "30d, 2w or 48h")
    if keep_seconds < _SECONDS["d"]:
        raise typer.BadParameter("at least 1d: a run may be using what is younger", param_hint="--keep")
    most = None if cache is None else int(_amount(cache, _BYTES, "--cache", "500M or 5G"))
    settings = common.load_settings()
    done = _collect(settings, names or [], keep_seconds, most, dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **asdict(done)}, indent=1))
        return
    _show(done, keep, dry_run)


def _collect(settings: Settings, names: list[str], keep: float, most: int | None, dry_run: bool) -> Collected:
    from ml_platform.automation import needed
    from ml_platform.stages.opening import store_of
    from ml_platform.store.garbage import Garbage, Needed, collect

    store = store_of(settings)
    finished: list[Garbage] = []

    def look(manifests: Collection[Manifest]) -> Needed:
        unknown = sorted({*names} - {manifest.pipeline for manifest in manifests})
        if unknown:
            raise typer.BadParameter(f"the store has nothing of {', '.join(unknown)}", param_hint="PIPELINE")
        found = needed.needed(settings, store, manifests)
        if not finished:
            finished.extend(needed.remove_finished_jobs(settings, manifests, dry_run=dry_run))
        return found

    done = collect(store, look, keep_seconds=keep, pipelines=names, dry_run=dry_run)
    done.garbage += finished
    if most is not None:
        sizes = store.copies.trim(most, {*needed.read_by_jobs(settings)}, dry_run=dry_run)
        what = "of a remote store's files"
        done.garbage += [Garbage(kind="local copies", what=what, count=len(sizes), bytes=sum(sizes))] if sizes else []
    if needed.is_shared(settings):
        done.remarks.append(
            "The store is not in this home: what others have published from it is not known here. What is older than "
            "--keep goes, unless something here needs it; what once landed stays."
        )
    return done


def _show(done: Collected, keep: str, dry_run: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli import common

    console = common.output()
    for remark in done.remarks:
        common.notices().print(escape(remark))
    if not done.garbage:
        console.print(f"There is no garbage: all else is needed, or younger than {keep}.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "what", "how many", "bytes"):
        table.add_column(title, justify="right" if title in ("how many", "bytes") else "left")
    for found in done.garbage:
        table.add_row(found.kind, escape(found.what), f"{found.count:,}", f"{found.bytes:,}")
    console.print(table)
    total = sum(found.bytes for found in done.garbage)
    console.print(f"{'Would free' if dry_run else 'Freed'} {total:,} bytes.")


def _amount(text: str, units: dict[str, float] | dict[str, int], option: str, like: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z])(?:i?B)?", text)
    if match is None or match[2] not in units:
        raise typer.BadParameter(f"{text!r} is not an amount such as {like}", param_hint=option)
    return float(match[1]) * units[match[2]]
