"""Wording that several parts share."""

from __future__ import annotations

from collections.abc import Sequence


def few(names: Sequence[str], shown: int = 3) -> str:
    """Some names, and how many more there are: "a, b and 3 more"."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, noun: str, plural: str = "") -> str:
    """So many of something: "1 row", "1,200 rows", "2 batches"."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
