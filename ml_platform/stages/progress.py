"""Who wants to hear how a run in this process gets on. Steps tell; the command line listens, by run id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ml_platform.stages.summary import Progress, StageSummary

if TYPE_CHECKING:
    from ml_platform.stages.execute import Did


class Listener(Protocol):
    """What a listener offers."""

    def on_progress(self, progress: Progress) -> None:
        """A stage got on."""

    def on_stage(self, summary: StageSummary, reasons: Mapping[Did, Mapping[str, str]]) -> None:
        """A stage ended."""


_listeners: dict[str, Listener] = {}


@contextmanager
def listening(run_id: str, listener: Listener) -> Iterator[None]:
    """Hear of one run while the block lasts."""
    _listeners[run_id] = listener
    try:
        yield
    finally:
        del _listeners[run_id]


def notify(run_id: str, stage: str, done: int, total: int, message: str = "") -> None:
    """Tell that a stage got on."""
    if listener := _listeners.get(run_id):
        listener.on_progress(Progress(stage=stage, done=done, total=total, message=message))


def notify_stage(run_id: str, summary: StageSummary, reasons: Mapping[Did, Mapping[str, str]]) -> None:
    """Tell that a stage ended."""
    if listener := _listeners.get(run_id):
        listener.on_stage(summary, reasons)
