"""Finds the quote of a CSV file that is never closed: a reader takes all lines behind it for one value, without a word.

    if (lost := lost_quote(path)) is not None: ...

By RFC 4180 a quote opens a value right behind a comma or a line end and closes it right before one, and in a quoted
value it is doubled. Whether that holds shows from the bytes around each quote alone, a block at once. Only in a block
where it does not are the quotes gone through one by one, as pyarrow reads them: one in the middle of a value that is
not quoted (`5" pipe`) is text, and so is what follows a closing quote on the same line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 20
_LONG = 1 << 24
"""A value of so many bytes has lines."""
_QUOTE = ord('"')
_BOM = b"\xef\xbb\xbf"
_BOUNDS = b",\r\n"
_EDGES = np.isin(np.arange(256), list(b'",\r\n'))
"""What may be next to a quote, outside of the value that it opens or closes; or it is one of two."""


@dataclass(frozen=True)
class LostQuote:
    """A quote without an end of its own.

    Args:
        line: of the file, counted from 1, in which it opens.
        text: of that line.
        ends: the line in which another value's quote closed it; None where the file ends.
    """

    line: int
    text: str
    ends: int | None


def lost_quote(path: Path) -> LostQuote | None:
    """The first quote that is not closed before the file ends, or only in a later line by one with text behind it."""
    opened: int | None = None  # where the value began that goes on, if one does
    start, before = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            while block.endswith(b'"') and (more := file.read(1)):
                block += more  # what is behind a quote must be known
            if not start and block.startswith(_BOM):
                start, block = len(_BOM), block.removeprefix(_BOM)
            if b'"' in block:
                data, first = before + block + b"\n", start - len(before)
                quotes = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _QUOTE)
                proper, opened_now = _as_it_should(data, quotes, first, opened)
                if not proper:
                    opened_now, ends = _one_by_one(path, data, quotes.tolist(), first, opened)
                    if ends is not None:
                        assert opened_now is not None
                        return _told(path, opened_now, ends)
                opened = opened_now
            start += len(block)
            before = block[-1:] or before
    return None if opened is None else _told(path, opened, None)


def _as_it_should(data: bytes, quotes: npt.NDArray[np.intp], first: int, opened: int | None) -> tuple[bool, int | None]:
    """Whether every quote is where it may be, and where the value began that goes on behind the data.

    `first` is the place of the data in the file, and places of values are too.
    """
    inside = opened is not None
    bytes_ = np.frombuffer(data, dtype=np.uint8)
    opening, closing = quotes[int(inside) :: 2], quotes[1 - int(inside) :: 2]
    behind = bytes_[opening - 1]
    if not (_EDGES[behind].all() and _EDGES[bytes_[closing + 1]].all()):
        return False, None
    if (len(quotes) + inside) % 2 == 0:
        return True, None
    began = opening[behind != _QUOTE]  # the others are the second of two
    return True, first + int(began[-1]) if len(began) else opened


def _one_by_one(
    path: Path, data: bytes, quotes: list[int], first: int, opened: int | None
) -> tuple[int | None, int | None]:
    """Where the value began that goes on behind the data; or that was closed wrongly, and where it was."""
    second = -1
    for quote in quotes:
        if quote == second:
            continue
        if opened is None:
            if data[quote - 1] in _BOUNDS:
                opened = first + quote
        elif data[quote + 1] == _QUOTE:
            second = quote + 1
        else:
            if data[quote + 1] not in _BOUNDS and b"\n" in _between(path, data, first, opened, quote):
                return opened, first + quote
            opened = None
    return opened, None


def _between(path: Path, data: bytes, first: int, opened: int, quote: int) -> bytes:
    if opened >= first:
        return data[opened - first : quote]
    with path.open("rb") as file:
        file.seek(opened)
        return file.read(min(first + quote - opened, _LONG))


def _line(path: Path, place: int) -> int:
    """The line of a byte of the file, from 1."""
    lines, left = 1, place
    with path.open("rb") as file:
        while left and (block := file.read(min(_BLOCK, left))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines


def _told(path: Path, opened: int, closed: int | None) -> LostQuote:
    with path.open("rb") as file:
        file.seek(max(0, opened - 1000))
        head = file.read(opened - file.tell()).rsplit(b"\n", 1)[-1]
        text = (head + file.read(1000).split(b"\n", 1)[0]).decode("utf-8", "replace")
    return LostQuote(_line(path, opened), text.rstrip("\r"), None if closed is None else _line(path, closed))
