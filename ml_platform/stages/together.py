"""Several stages of one step at a time, each in a thread: candidates train in processes of their own, so a thread only
waits for them. What they come to is published by the step's own thread.
"""

from __future__ import annotations

import contextvars
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.stages.execute import Result

if TYPE_CHECKING:
    from ml_platform.stages.step import StageRun

LOOK_SECONDS = 0.2
"""How long to wait at a time. Polars lets a wait for a lock go on after a signal (SA_RESTART), so Ctrl-C would never
be seen in one without end."""


def together(runs: Sequence[StageRun], at_once: int) -> Iterator[tuple[StageRun, Result]]:
    """Carry out several stages, and tell each artifact as soon as it is settled; the caller publishes it.

    One that fails leaves the others alone. Whatever interrupts the caller stops all, and waits for their end.

    Args:
        runs: none of which reads what another makes, each with a bench of its own.
        at_once: how many at a time, in their order.

    Raises:
        Exception: what went wrong with no artifact in particular, as `StageRun.results` raises it; when all have ended.
    """
    if at_once == 1 or len(runs) < 2:
        for run in runs:
            for result in run.results():
                yield run, result
        return
    told: queue.SimpleQueue[tuple[StageRun, Result] | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(at_once, thread_name_prefix="stage") as pool:
        # Each with a copy of this thread's context variables, in which Dagster keeps the step's context.
        ends = [pool.submit(contextvars.copy_context().run, _carry_out, run, told) for run in runs]
        try:
            left = len(runs)
            while left:
                try:
                    item = told.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                if item is None:
                    left -= 1
                else:
                    yield item
        except BaseException:
            _stop(runs, ends)
            raise
    for end in ends:
        end.result()


def _carry_out(run: StageRun, told: queue.SimpleQueue[tuple[StageRun, Result] | None]) -> None:
    try:
        for result in run.results():
            told.put((run, result))
    finally:
        told.put(None)


def _stop(runs: Sequence[StageRun], ends: Sequence[Future[None]]) -> None:
    for run in runs:
        run.bench.stopping.set()
    for end in ends:
        end.cancel()


def refusal(runs: Sequence[StageRun]) -> dg.Failure | None:
    """The failure that the step must end in, if any: what each stage says, and which stages are well."""
    said = {run: failure for run in runs if (failure := run.refuse()) is not None}
    if not said:
        return None
    if len(runs) == 1:
        return said[runs[0]]
    well = [run.stage.name for run in runs if run not in said]
    lines = [str(failure.description) for failure in said.values()]
    if well:
        lines.append(f"Done, and kept: {', '.join(well)}.")
    return dg.Failure(
        "\n".join(lines),
        metadata={name: value for failure in said.values() for name, value in failure.metadata.items()},
        allow_retries=False,
    )
