"""What was wanted, what was found."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import common


@dataclass(frozen=True)
class Row:
    """One thing that was wanted."""

    what: str
    found: str
    wanted: str
    reached: bool


def ratio(what: str, ours: float, theirs: float, at_most: float, beside: str) -> Row:
    """A time that should be at most so many times another one, both in seconds."""
    found = f"{ours:.3g} s / {theirs:.3g} s = {ours / theirs:.2f}"
    return Row(what, found, f"<= {at_most:g} x {beside}", ours <= at_most * theirs)


def equal(what: str, found: object, wanted: object) -> Row:
    """Something that should be exactly so."""
    same = found == wanted
    return Row(what, str(found) or "none", "just that" if same else str(wanted) or "none", same)


def table(rows: list[Row]) -> common.Table:
    """All of them."""
    shown = common.Table(["what", "found", "wanted", "reached"])
    for row in rows:
        shown.add(row.what, row.found, row.wanted, "yes" if row.reached else "**no**")
    return shown
