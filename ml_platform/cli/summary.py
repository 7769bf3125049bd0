"""Shows what a run came to: batches, gates, metrics beside the baseline, the model, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ml_platform.pipeline import METRICS, Task
from ml_platform.settings import Settings
from ml_platform.stages.summary import RunSummary

MANY = 8
"""Of batches with one and the same reason, how many are named."""


def show(summary: RunSummary, task: Task, settings: Settings, console: Console) -> None:
    """Print a summary; `task` says which metric comes first."""
    console.print()
    console.rule(f"[bold]{summary.pipeline}")
    if summary.stages:
        console.print(_stages(summary))
    if summary.accepted or summary.rejected or summary.incomplete:
        counts = f"{summary.accepted} accepted, {len(summary.rejected)} rejected, {len(summary.incomplete)} incomplete"
        console.print(f"[bold]Batches[/bold]   {counts}")
        _reasons(console, "rejected", summary.rejected)
        if summary.rejected:
            hint = f'ml-platform waive {summary.pipeline} {next(iter(summary.rejected))} --reason "..."'
            console.print(f"[dim]  One that is good as it is, a person may accept: {escape(hint)}")
        _reasons(console, "incomplete", summary.incomplete)
    if summary.metrics:
        console.print(_metrics(summary, METRICS[task]))
    for gate in summary.gates:
        console.print(f"[bold]Gate[/bold]      [{'green' if gate.passed else 'red'}]{escape(str(gate))}")
    if summary.model is not None:
        model = summary.model
        aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
        console.print(f"[bold]Model[/bold]     {escape(f'{model.name} version {model.version}{aliases}')}")
        console.print(f"          mlflow.pyfunc.load_model({escape(model.uri)!r})", soft_wrap=True)
        console.print(f"          with MLflow at {escape(settings.mlflow)}", soft_wrap=True)
    for problem in summary.problems:
        if "DagsterExecutionInterruptedError" in problem:
            problem = "Interrupted. What was committed stays: run it again, and it goes on from there."
        console.print(f"[red]Problem[/red]   {escape(problem)}", soft_wrap=True)
    run = f", Dagster run {summary.run_id}" if summary.run_id else ", nothing was to be done"
    console.print(f"[bold]Took[/bold]      {summary.seconds:.1f} s{run}", soft_wrap=True)
    console.print("[bold]See it[/bold]    `make ui`, or `ml-platform ui`, and open the address that it prints")


def _stages(summary: RunSummary) -> Table:
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
        table.add_row(stage.name, *cells, f"{stage.seconds:.1f}", escape(stage.detail))
    return table


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
        more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
        console.print(
            f"  [yellow]{word}[/yellow]  {escape(', '.join(names[:MANY]) + more)}: {escape(reason)}", soft_wrap=True
        )
