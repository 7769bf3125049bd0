"""Shows what a run came to: batches, gates, metrics beside the baseline, the model, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ml_platform.pipeline import METRICS, MORE_METRICS, Task
from ml_platform.settings import Settings
from ml_platform.stages.summary import RunSummary, was_stopped
from ml_platform.words import few

MANY = 8
"""Of batches with one and the same reason, how many are named."""

BRIEF = 24
"""Characters that a stage's remark may have in the table; a longer one is told below it."""


def show(summary: RunSummary, task: Task, settings: Settings, console: Console) -> None:
    """Print a summary; `task` says which metric comes first."""
    console.print()
    console.rule(f"[bold]{summary.pipeline}")
    problems = "\n".join(summary.problems)
    if summary.stages:
        show_stages(summary, console)
    if summary.accepted or summary.rejected or summary.incomplete:
        waived = f" ({len(summary.waived)} of them waived)" if summary.waived else ""
        others = f"{len(summary.rejected)} rejected, {len(summary.incomplete)} incomplete"
        console.print(f"[bold]Batches[/bold]   {summary.accepted} accepted{waived}, {others}")
        if summary.waived:
            console.print(f"  [yellow]waived[/yellow]    {escape(few(summary.waived, MANY))}", soft_wrap=True)
        for check in sorted({check for checks in summary.warned.values() for check in checks}):
            batches = sorted(batch for batch, checks in summary.warned.items() if check in checks)
            console.print(f"  [yellow]warned[/yellow]    {escape(few(batches, MANY))}: {check}", soft_wrap=True)
        if summary.warned:
            console.print(f"[dim]  Why: ml-platform gates {summary.pipeline}")
        # What a problem says is not said here too: a run of a rejected batch alone ends with it.
        rejected = {batch: reason for batch, reason in summary.rejected.items() if reason not in problems}
        _reasons(console, "rejected", rejected)
        if rejected:
            hint = f'ml-platform waive {summary.pipeline} {next(iter(rejected))} --reason "..."'
            console.print(f"[dim]  One that is good as it is, a person may accept: {escape(hint)}")
        _reasons(console, "incomplete", summary.incomplete)
    if summary.metrics:
        console.print(_metrics(summary, (*METRICS[task], *MORE_METRICS[task])))
    for gate in summary.gates:
        console.print(f"[bold]Gate[/bold]      [{'green' if gate.passed else 'red'}]{escape(str(gate))}")
    if summary.model is not None:
        model = summary.model
        aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
        console.print(f"[bold]Model[/bold]     {escape(f'{model.name} version {model.version}{aliases}')}")
        if model.standing:
            console.print(f"          [yellow]{escape(model.standing)}[/yellow]", soft_wrap=True)
        console.print(f"          mlflow.pyfunc.load_model({escape(model.uri)!r})", soft_wrap=True)
        console.print(f"          with MLflow at {escape(settings.mlflow)}", soft_wrap=True)
    for problem in summary.problems:
        if was_stopped(problem):
            problem = "Interrupted. What was committed stays: run it again, and it goes on from there."
        console.print(f"[red]Problem[/red]   {escape(problem)}", soft_wrap=True)
    run = f", Dagster run {summary.run_id}" if summary.run_id else ", nothing was to be done"
    console.print(f"[bold]Took[/bold]      {summary.seconds:.1f} s{run}", soft_wrap=True)
    console.print("[bold]See it[/bold]    `make ui`, or `ml-platform ui`, and open the address that it prints")


def show_stages(summary: RunSummary, console: Console) -> None:
    """Print what became of each stage, a line each, and below them the long remarks that no problem tells."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Stage")
    for name in ("built", "cached", "fresh", "rejected", "failed", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for stage in summary.stages:
        counts = (stage.built, stage.cached, stage.fresh, stage.rejected, stage.failed)
        cells = [str(count) if count else "[dim]-" for count in counts]
        if stage.rejected:
            cells[3] = f"[yellow]{stage.rejected}"
        if stage.failed:
            cells[4] = f"[red]{stage.failed}"
        detail = stage.detail if len(stage.detail) <= BRIEF else "see below"
        table.add_row(stage.name, *cells, f"{stage.seconds:.1f}", escape(detail))
    console.print(table)
    for stage in summary.stages:
        if len(stage.detail) > BRIEF and not any(stage.detail in problem for problem in summary.problems):
            console.print(f"  [yellow]{stage.name}[/yellow]  {escape(stage.detail)}", soft_wrap=True)


def _metrics(summary: RunSummary, order: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, justify in (("Metric", "left"), ("model", "right"), ("baseline", "right"), ("difference", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in sorted(summary.metrics, key=lambda name: order.index(name) if name in order else len(order)):
        value = summary.metrics[name]
        baseline = summary.baseline_metrics.get(name)
        beside = ("-", "-") if baseline is None else (f"{baseline:.4f}", f"{value - baseline:+.4f}")
        table.add_row(name, f"{value:.4f}", *beside)
    return table


def _reasons(console: Console, word: str, reasons: Mapping[str, str]) -> None:
    """One line a reason, with the batches that it holds for."""
    ordered = sorted(reasons.items(), key=lambda item: (item[1], item[0]))
    for reason, group in groupby(ordered, key=lambda item: item[1]):
        names = [name for name, _ in group]
        console.print(f"  [yellow]{word}[/yellow]  {escape(few(names, MANY))}: {escape(reason)}", soft_wrap=True)
