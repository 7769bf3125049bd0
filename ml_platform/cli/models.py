"""`ml-platform models`: the versions of a registered model, which of them is used, and who decides that."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml_platform.registry.listing import Listed
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.deciding import Deed

LIST_EXAMPLES = """[bold]Examples[/bold]

  ml-platform models list nyc_flights           the versions, the newest first, and how each stands
  ml-platform models list nyc_flights --json    the same for a program"""

DECIDE_EXAMPLES = """[bold]Examples[/bold]

  ml-platform models approve nyc_flights 4 --reason "better on the winter's days"
  ml-platform models reject nyc_flights 4 --reason "too sure of itself at night"
  ml-platform models promote nyc_flights 2 --reason "the one that the airline has tested"
  ml-platform models rollback nyc_flights --reason "complaints since Monday"

A decision is kept for good, and holds for one model: `models history` lists them.
Its files are read back and compared with their hashes before an alias names it."""

HISTORY_EXAMPLES = """[bold]Examples[/bold]

  ml-platform models history nyc_flights           who decided what, when, why, and on what evidence
  ml-platform models history nyc_flights --json    with all of the evidence"""

DIFF_EXAMPLES = """[bold]Examples[/bold]

  ml-platform models diff nyc_flights@champion nyc_flights@challenger
  ml-platform models diff nyc_flights@3 nyc_flights@5 --json"""

app = typer.Typer(
    name="models",
    help="Registered models: their versions, which is the champion, and who decides that.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Name = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")]
Number = Annotated[str, typer.Argument(metavar="VERSION", help="The number of a version; `models list` shows them.")]
Reason = Annotated[str, typer.Option(help="Why. It must be said.", show_default=False)]
By = Annotated[str, typer.Option(metavar="NAME", help="Who says so. Default: the user of this machine.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=LIST_EXAMPLES)
def list_versions(name: Name, as_json: AsJson = False) -> None:
    """Show the versions of a pipeline's model, the newest first, and how each stands."""
    from ml_platform.cli import common
    from ml_platform.pipeline import METRICS
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.listing import listed

    chain = _chain(name)
    pipeline = chain.pipeline
    metric = pipeline.model_gate.main(METRICS[pipeline.task][0])
    found = listed(Connection(chain.settings.mlflow), chain.store, pipeline.name, metric)
    if as_json:
        typer.echo(json.dumps({"pipeline": pipeline.name, "versions": [asdict(each) for each in found]}, indent=1))
        return
    if not found:
        told = f"No version of {pipeline.name} is registered yet: `ml-platform run {pipeline.name}` makes one."
        common.output().print(told)
        return
    _show(pipeline.name, found)


def _show(name: str, found: list[Listed]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli import common
    from ml_platform.stages.evidence import approving

    console = common.output()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("version", "state", found[0].metric, "gain", "when", "model"):
        table.add_column(title)
    for each in found:
        value = _around(each.value, each.low, each.high)
        gain = _around(each.gain.get("gain"), each.gain.get("low"), each.gain.get("high"))
        state = f"[bold]{each.state}[/bold]" if each.aliases else each.state
        table.add_row(
            each.version, state, escape(value), escape(gain), each.when[:16].replace("T", " "), each.model[:12]
        )
    console.print(table)
    for each in found:
        if each.decided and each.state in ("champion", "waiting", "rejected"):
            console.print(f"[bold]{each.version}[/bold]  {escape(each.decided)}", soft_wrap=True)
        if each.state == "waiting":
            console.print(f"   [dim]{escape(approving(name, each.version))}", soft_wrap=True)


def _around(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


@app.command("approve", epilog=DECIDE_EXAMPLES)
def approve(name: Name, version: Number, reason: Reason = "", by: By = "") -> None:
    """Make the challenger, which waits for a person, the champion."""
    _decide(name, "approve", version, by, reason)


@app.command("reject", epilog=DECIDE_EXAMPLES)
def reject(name: Name, version: Number, reason: Reason = "", by: By = "") -> None:
    """Say that a version is not to become the champion: no policy promotes its model again."""
    _decide(name, "reject", version, by, reason)


@app.command("promote", epilog=DECIDE_EXAMPLES)
def promote(name: Name, version: Number, reason: Reason = "", by: By = "") -> None:
    """Make any whole version the champion, whatever was decided of it before."""
    _decide(name, "promote", version, by, reason)


@app.command("rollback", epilog=DECIDE_EXAMPLES)
def rollback(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="An earlier champion. Default: the last one.")] = "",
    reason: Reason = "",
    by: By = "",
) -> None:
    """Make an earlier champion the champion again; no policy promotes the one that it replaces."""
    _decide(name, "rollback", version, by, reason)


def _decide(name: str, deed: Deed, version: str, by: str, reason: str) -> None:
    from rich.markup import escape

    from ml_platform.cli import common
    from ml_platform.instance import prepare_instance
    from ml_platform.stages.deciding import decide, describe_in_mlflow, told

    chain = _chain(name)
    made = decide(chain, deed, version, by=by or common.user(), reason=reason)
    common.output().print(escape(f"{name} {made.describe()}"), soft_wrap=True)
    if undone := describe_in_mlflow(chain, made):
        common.notices().print(escape(f"The version's description in MLflow does not say so yet.\n{undone}"))
    with prepare_instance(chain.settings) as instance:
        if (check := told(chain, instance)) is not None:
            instance.report_runless_asset_event(check)


@app.command("history", epilog=HISTORY_EXAMPLES)
def history(name: Name, as_json: AsJson = False) -> None:
    """Show who decided what about a pipeline's models, when, why and on what evidence, the oldest first."""
    from rich.markup import escape

    from ml_platform.cli import common
    from ml_platform.errors import RegistryError
    from ml_platform.registry.desk import CARRIED_OUT_TAG
    from ml_platform.registry.glance import model_tag
    from ml_platform.registry.trail import Mark, Trail

    chain = _chain(name)
    mark, unasked = None, ""
    try:
        mark = Mark.parse(model_tag(chain.settings.mlflow, chain.pipeline.name, CARRIED_OUT_TAG))
    except RegistryError as error:  # the trail is in the store, and can be read all the same
        unasked = f"Whether the trail's end is there is not known: {error}"
    standing = Trail.of(chain.store, chain.pipeline.name, chain.settings.mlflow).read(mark)
    if as_json:
        decisions = [asdict(each) for each in standing.decisions]
        flaws = {"damaged": standing.damaged, "lost": standing.lost, "elsewhere": standing.elsewhere}
        typer.echo(json.dumps({"pipeline": name, **flaws, "decisions": decisions}, indent=1))
        return
    console = common.output()
    if unasked:
        common.notices().print(escape(unasked), soft_wrap=True)
    if standing.elsewhere:
        told = (
            "MLflow shows a decision that is not in this trail: it was made with another store, or this trail is lost."
        )
        console.print(f"[yellow]{told}")
    if standing.lost:
        told = f"The trail's end is missing: MLflow shows decision {standing.lost}, which cannot be read any more."
        console.print(f"[red]{told}", soft_wrap=True)
    if standing.damaged:
        console.print(f"[red]A record of the trail is damaged or missing: {escape(standing.damaged)}", soft_wrap=True)
    for each in standing.decisions:
        console.print(f"[bold]{each.number}[/bold]  {escape(each.describe())}", soft_wrap=True)
        known = each.evidence
        value = known.get("metrics", {}).get(known.get("metric"))
        low, high = known.get("intervals", {}).get(known.get("metric"), (None, None))
        seen = [f"{known['metric']} {_around(value, low, high)}"] if value is not None else []
        gain = known.get("gain", {})
        seen += [f"gain {_around(gain.get('gain'), gain.get('low'), gain.get('high'))}"] if gain else []
        seen += [f"evaluation {known['evaluation'][:12]}"] if known.get("evaluation") else []
        seen += [f"model {each.model[:12]}", *([f"run {known['run'][:8]}"] if known.get("run") else [])]
        console.print(f"   [dim]{escape(', '.join(seen))}", soft_wrap=True)
    if not standing.decisions:
        console.print(f"Nothing was ever decided about {escape(name)}.")


@app.command("diff", epilog=DIFF_EXAMPLES)
def diff(
    one: Annotated[str, typer.Argument(metavar="NAME@A", help="A version or an alias of a model.")],
    other: Annotated[str, typer.Argument(metavar="NAME@B", help="Another.")],
    as_json: AsJson = False,
) -> None:
    """Show how two versions differ: metrics, recipe, data, code, libraries."""
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli import common
    from ml_platform.provenance.registered import record_of, split_name, version_named
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.difference import differences

    chain = _chain(split_name(one)[0])
    connection = Connection(chain.settings.mlflow)
    both = [version_named(connection, text) for text in (one, other)]
    chains = [chain if v.name == chain.pipeline.name else _chain(v.name) for v in both]
    records = [record_of(connection, version, each) for version, each in zip(both, chains, strict=True)]
    found = differences(*records)
    labels = [f"{version.name}@{version.version}" for version in both]
    if as_json:
        rows = [asdict(each) for each in found]
        typer.echo(json.dumps({"one": labels[0], "other": labels[1], "differences": rows}, indent=1, default=str))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "", *labels):
        table.add_column(title, overflow="fold")
    for each in found:
        table.add_row(each.kind, escape(each.what), escape(each.shown(each.one)), escape(each.shown(each.other)))
    common.output().print(table if found else f"{labels[0]} and {labels[1]} differ in nothing that is known of them.")


def _chain(name: str) -> Chain:
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of

    settings = common.load_settings()
    return chain_of(stages_of(pipeline_named(settings, name)), settings)
