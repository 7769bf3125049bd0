"""Progress of a run on a terminal (one bar a stage), and as plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ml_platform.stages.summary import Progress as StageProgress

QUIET_SECONDS = 10.0
"""In a log, how long a stage says nothing between two lines."""


@contextmanager
def shown(console: Console, *, title: str) -> Iterator[Callable[[StageProgress], None]]:
    """Gives the function to hand to `run_pipeline` as `on_progress`."""
    if console.is_terminal:
        with _bars(console) as progress:
            stages: dict[str, TaskID] = {}
            first = progress.add_task(f"{title}: starting", total=None, message="")
            yield lambda event: _draw(progress, stages, first, event)
    else:
        console.print(f"{title}: starting", markup=False)
        yield _Lines(console)


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[message]}"),
        console=console,
    )


def _draw(progress: Progress, stages: dict[str, TaskID], first: TaskID, event: StageProgress) -> None:
    progress.update(first, visible=False)
    if event.stage not in stages:
        stages[event.stage] = progress.add_task(event.stage, total=event.total, message="")
    progress.update(stages[event.stage], completed=event.done, total=event.total, message=escape(event.message))


class _Lines:
    """A line where a stage begins and where it ends, and one every few seconds between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, float] = {}
        self._last = ""

    def __call__(self, event: StageProgress) -> None:
        now = time.monotonic()
        ends = event.done == event.total
        if event.stage in self._said and not ends and now - self._said[event.stage] < QUIET_SECONDS:
            return
        count = event.done if event.total is None else f"{event.done}/{event.total}"
        line = f"{event.stage}: {count} {event.message}".rstrip()
        if line != self._last:
            self._said[event.stage], self._last = now, line
            self._console.print(line, markup=False)
