"""Names of columns, which may be anything, in a form that polars takes for nothing but a name."""

from __future__ import annotations

import re


def literal(name: str) -> str:
    """What selects the column of this very name, in `pl.col` and wherever polars takes a name for an expression.

    To polars "*" is all columns and "^...$" a pattern. A pattern that fits the one name alone goes wherever a name
    does, through pandera's checks too, where a selector would not.
    """
    if name == "*" or (name.startswith("^") and name.endswith("$")):
        return f"^{re.escape(name)}$"
    return name
