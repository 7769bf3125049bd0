"""`ml-platform doctor`: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import typer

EXIT_FAILED = 1


def doctor() -> None:
    """Check this machine: Java, Python, torch, memory, disk, store, MLflow, Dagster. Says how to mend what is wrong."""
    from rich.markup import escape
    from rich.table import Table

    from ml_platform.cli import common
    from ml_platform.cli.checks import CHECKS, checked

    settings = common.load_settings()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "", "found"):
        table.add_column(heading, overflow="fold")
    fixes: list[tuple[str, str]] = []
    with common.notices().status("Looking around ...") as status:
        for name, check in CHECKS.items():
            status.update(f"{name} ...")
            result = checked(check, settings)
            mark = "[green]ok" if result.ok else "[red]problem"
            table.add_row(name, mark, escape(result.found))
            if not result.ok:
                fixes.append((name, result.fix))
    console = common.output()
    console.print(table)
    for name, fix in fixes:
        console.print(f"\n[bold]{name}[/bold]: {escape(fix)}", soft_wrap=True)
    if fixes:
        raise typer.Exit(EXIT_FAILED)
    console.print("\nAll is well.")
