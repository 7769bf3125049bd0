"""One thing at a time in a thread behind the caller, which goes on with the next meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Behind:
    """Does what it is given in order. It never falls back by more than one, so that little is in memory at once."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._last: Future[Any] | None = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def do(self, work: Callable[..., object], *given: object) -> None:
        """Have it done, as soon as what was given before is. Raises what that has raised."""
        self.wait()
        self._last = self._pool.submit(work, *given)

    def wait(self) -> None:
        """Until all is done. Raises what it has raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()
