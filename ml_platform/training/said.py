"""What a rank says: which rank says it, and what it says when another has gone."""

from __future__ import annotations

import io
import re
import sys
from types import TracebackType
from typing import TextIO

MARK = re.compile(r"\[rank (\d+)\] ")
"""What each line of a rank beside the first begins with. Rank 0's are as they are: machines read some of them."""
_PEER_IS_GONE = re.compile(
    r"Connection (closed|reset) by peer|gloo/transport|DistNetworkError|ncclRemoteError|ncclSystemError|Broken pipe"
)


def mark(rank: int) -> None:
    """Mark the lines that this process prints from now on as that rank's."""
    sys.stdout, sys.stderr = _Marked(sys.stdout, rank), _Marked(sys.stderr, rank)


def end() -> None:
    """End the lines that were begun. To be called before the process ends."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Marked):
            stream.end()
        stream.flush()


class _Marked(io.TextIOBase):
    """Writes whole lines, each in one piece, so that those of several ranks do not mix."""

    def __init__(self, out: TextIO, rank: int) -> None:
        self._out, self._mark, self._begun = out, f"[rank {rank}] " if rank else "", ""

    def end(self) -> None:
        """End a line that was begun."""
        if self._begun:
            self.write("\n")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._out.fileno()

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._out.write("".join(f"{self._mark}{line}\n" for line in lines))
            self._out.flush()
        return len(text)


def is_of_a_lost_peer(message: str) -> bool:
    """Whether an exception says but that another rank has gone, which is never the cause."""
    return _PEER_IS_GONE.search(message) is not None


def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook`. One line where a rank only missed another: people look for why that one has ended, and a
    traceback of where this one waited for it would push what they look for out of the log's last lines."""
    message = f"{kind.__name__}: {error}"
    if is_of_a_lost_peer(message):
        sys.stderr.write(f"This rank ends, since another has ended: {message.splitlines()[0]}\n")
    else:
        sys.__excepthook__(kind, error, trace)
