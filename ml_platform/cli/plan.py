"""`ml-platform plan`: what a run would do and why, and what a revision's code would make stale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.cost import Cost
    from ml_platform.stages.plan import StagePlan
    from ml_platform.versions.cause import Cause

EXAMPLES = """[bold]Examples[/bold]

  ml-platform plan nyc_flights               stage by stage: what is fresh, what would run, and why
  ml-platform plan nyc_flights --batches 2013-06-01..2013-06-07
  ml-platform plan --diff main               what the code here makes stale that was not on main
  ml-platform plan nyc_flights --json        the same for a program

Nothing is built or changed. Ends with 0 where there is nothing to do, and with 2 where a run would do something."""

CAUSES = 8
ROOTS = 2
"""Causes that are shown of a stage, and of what is behind one that may run; --json has them all."""


def plan(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="PIPELINE", help="Pipelines by name. Default: all of them.")
    ] = None,
    batches: Annotated[
        list[str] | None,
        typer.Option(metavar="A..B | A,B,C", help="Only these batches. Default: all that landed."),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Compare the code with a git revision's instead, and say what the difference makes stale. "
            "Works without any data, as in CI; libraries are those installed here on both sides.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a run would do, and why, without doing it."""
    from ml_platform.cli import common
    from ml_platform.discovery import pipeline_named, pipelines

    settings = common.load_settings()
    if diff is not None:
        if not diff.strip():
            raise typer.BadParameter("it names no revision (an unset variable?)", param_hint="--diff")
        if batches:
            raise typer.BadParameter("a comparison of code is of all batches", param_hint="--batches")
        from ml_platform.cli.difference import compare_and_show

        raise typer.Exit(compare_and_show(diff, names or [], settings, as_json=as_json))
    chosen = [pipeline_named(settings, name) for name in names] if names else list(pipelines(settings).values())
    plans = {pipeline.name: _plan(pipeline, settings, batches or []) for pipeline in chosen}
    if as_json:
        typer.echo(json.dumps(as_record(plans), indent=1))
    else:
        for name, found in plans.items():
            show(name, found, common.output())
    raise typer.Exit(2 if any(stage.to_do for found in plans.values() for stage in found) else 0)


def _plan(pipeline: Pipeline, settings: Settings, batches: list[str]) -> list[StagePlan]:
    from ml_platform.cli.batches import known_batches, selected
    from ml_platform.stages.run import Request, plan_pipeline

    wanted = selected(batches, pipeline, partial(known_batches, pipeline, settings))
    return plan_pipeline(pipeline, settings, Request(batches=wanted))


def as_record(plans: dict[str, list[StagePlan]]) -> dict[str, Any]:
    """What `--json` prints. Its fields are those of `StagePlan` and `Cause`, where they are described."""
    from ml_platform.stages.cost import total
    from ml_platform.stages.plan import SCHEMA

    return {
        "schema": SCHEMA,
        "pipelines": [
            {
                "name": name,
                "to_do": any(stage.to_do for stage in found),
                "stages": [stage.to_dict() for stage in found],
                "cost": total(stage.cost for stage in found).to_dict(),
                "at_most": total(stage.at_most for stage in found).to_dict(),
                "cost_unknown": _unknown(found),
            }
            for name, found in plans.items()
        ],
    }


def _unknown(found: Sequence[StagePlan]) -> list[str]:
    return [stage.name for stage in found if stage.at_most is None]


# For people


def show(name: str, found: list[StagePlan], console: Console) -> None:
    """Print a pipeline's plan: a table of counts, the reasons, and what it costs."""
    from rich.table import Table

    console.print(f"[bold]{name}[/bold]")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Stage", no_wrap=True)
    counts = {
        "fresh": [len(stage.fresh) for stage in found],
        "from history": [len(stage.known) for stage in found],
        "stale": [len(stage.stale) for stage in found],
        "never built": [len(stage.missing) for stage in found],
        "may run": [len(stage.may) for stage in found],
        "rejected": [len(stage.rejected) for stage in found],
        "waiting": [len(stage.waiting) for stage in found],
        "withdrawn": [len(stage.withdrawn) for stage in found],
    }
    shown = {word: column for word, column in counts.items() if any(column) or word == "fresh"}
    for word in (*shown, "takes"):
        table.add_column(word, justify="right")
    for row, stage in enumerate(found):
        table.add_row(
            stage.name, *(str(column[row]) if column[row] else "-" for column in shown.values()), _takes(stage)
        )
    console.print(table)
    told: set[str] = set()
    reasons = [(stage.name, text) for stage in found for text in _why(stage, told)]
    if reasons:
        show_reasons(reasons, console)
    costs = total_line([stage.cost for stage in found], [stage.at_most for stage in found], _unknown(found))
    console.print(f"\n{costs}" if any(stage.to_do for stage in found) else "\nNothing to do.")


def show_reasons(reasons: Sequence[tuple[str, str]], console: Console) -> None:
    """Print why stages run: (stage, text) pairs, the name only where it is another than above."""
    from rich.markup import escape
    from rich.table import Table

    console.print("\n[bold]Why[/bold]")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    before = ""
    for name, text in reasons:
        table.add_row("" if name == before else name, escape(text))
        before = name
    console.print(table)


def _takes(stage: StagePlan) -> str:
    from ml_platform.stages.cost import duration

    if not (stage.build or stage.may):
        return "-"
    if stage.cost is None or stage.at_most is None:
        return "?"
    return duration(stage.cost.seconds) if stage.build else f"up to {duration(stage.at_most.seconds)}"


def _why(stage: StagePlan, told: set[str]) -> list[str]:
    """The reasons, a line each. What is behind a stage that may run, or that waits, is told of the first such stage."""
    lines = limited([said(cause) for cause in stage.causes], CAUSES)
    if stage.may:
        roots = "; ".join(limited([str(cause) for cause in stage.roots], ROOTS))
        lines.append(f"may run: waits for {', '.join(stage.waits_for)}{'' if roots in told else f' ({roots})'}")
        told.add(roots)
    lines += _grouped({batch: _gate(stage, batch) for batch in stage.rejected}, "rejected")
    waiting = {batch: _shorter(reason, told) for batch, reason in stage.waiting.items() if reason not in told}
    lines += _grouped(waiting, "waiting")
    lines += limited([reason for reason in stage.withdrawn.values() if reason not in told], ROOTS)
    told.update((*stage.waiting.values(), *stage.withdrawn.values()))
    told.update(refusal.reason for refusal in stage.rejected.values())
    return lines


def _shorter(reason: str, told: set[str]) -> str:
    """A reason without what it quotes of one that was told."""
    for known in filter(None, told):
        reason = reason.replace(f": {known.rstrip('.')}", "")
    return reason


def said(cause: Cause) -> str:
    """A cause, and how many artifacts are stale by it where that is not plain."""
    return f"{cause.text} ({cause.count})" if cause.count > max(1, len(cause.batches)) else cause.text


def limited(lines: Sequence[str], count: int) -> list[str]:
    """Some lines, and how many more there are."""
    more = len(lines) - count
    return [*lines[:count], f"and {more} more"] if more > 0 else list(lines)


def _gate(stage: StagePlan, batch: str) -> str:
    refusal = stage.rejected[batch]
    return f"{', '.join(refusal.gates)}: {refusal.reason}" if refusal.gates else refusal.reason


def _grouped(reasons: dict[str, str], word: str) -> list[str]:
    """Lines for batches that are rejected or wait: one for each reason, of the first few."""
    from ml_platform.words import few

    by_reason: dict[str, list[str]] = {}
    for batch, reason in reasons.items():
        by_reason.setdefault(reason, []).append(batch)
    lines = [
        f"{word}{f' {few(batches)}' if batches != [''] else ''}: {reason}" for reason, batches in by_reason.items()
    ]
    return limited(lines, ROOTS)


def total_line(least: Sequence[Cost | None], most: Sequence[Cost | None], unknown: Sequence[str]) -> str:
    """What it costs together, such as "About 45 s, at most 3 min 10 s, 0 GPU-hours."."""
    from ml_platform.stages.cost import duration, total

    low, high = total(least), total(most)
    if unknown and not high.seconds:
        return "How long it takes is not known: nothing of the kind was built yet."
    words = [f"About {duration(low.seconds)}"]
    if high.seconds > low.seconds:
        words.append(f"at most {duration(high.seconds)}")
    hours = [f"{low.gpu_hours:.3g}", *([f"{high.gpu_hours:.3g}"] if high.gpu_hours > low.gpu_hours else [])]
    words.append(f"{' to '.join(hours)} GPU-hours")
    return ", ".join(words) + (f". Not counted, for want of history: {', '.join(unknown)}." if unknown else ".")
