"""How a training job tells Dagster of its progress: through a file where it runs here, in its log where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter

if TYPE_CHECKING:
    from ml_platform.launch.protocol import Launcher


class LogMessages(dg.PipesMessageReader):
    """Finds messages among the lines of a job's log, whoever follows it: one that was joined tells its progress to
    those who joined it too. Only rank 0 writes any."""

    def __init__(self) -> None:
        self._handler: Any = None

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[Any]:
        """See PipesMessageReader."""
        self._handler = handler
        try:
            yield {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}
        finally:
            self._handler = None

    def no_messages_debug_text(self) -> str:
        """See PipesMessageReader."""
        return "Looked for messages in the log of the training job."

    def take(self, line: str) -> None:
        """Take a line of the log: a message, or any other."""
        start = line.find("{")
        if self._handler is None or start < 0 or PIPES_PROTOCOL_VERSION_FIELD not in line:
            return
        try:
            message = json.loads(line[start:])
        except ValueError:  # cut off: its pod was killed
            return
        self._handler.handle_message(message)


def reader_for(launcher: Launcher) -> dg.PipesMessageReader:
    """The reader of what this launcher's jobs write."""
    return LogMessages() if launcher.messages == "log" else dg.PipesTempFileMessageReader()
