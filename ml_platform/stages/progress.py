"""Who wants to hear how a run in this process gets on. Steps tell; the command line listens, by run id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_platform.stages.summary import Progress

Listener = Callable[[Progress], None]

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
        listener(Progress(stage=stage, done=done, total=total, message=message))
