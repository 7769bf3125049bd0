"""What takes the place of an optional source that did not land: its columns, and no rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import DeclarationError
from ml_platform.gates.report import FAMILIES
from ml_platform.gates.rules import declared_types, load_schema, plan
from ml_platform.gates.tally import Tally
from ml_platform.gates.writing import CanonicalWriter

if TYPE_CHECKING:
    from ml_platform.gates.report import GateReport
    from ml_platform.pipeline import Reference, Source


def absent(source: Source | Reference, out: Path, batch: str) -> GateReport:
    """Write a canonical file without rows, with the columns that the gate would have written of a file that landed.

    Args:
        source: which did not land.
        out: where the file goes.
        batch: whose.

    Returns:
        An accepted report, of no rows.

    Raises:
        DeclarationError: the schema does not tell which columns there would have been.
    """
    schema = load_schema(source.schema)
    types = declared_types(schema, list(schema.columns))
    would = plan(source.schema, types)
    if schema.strict not in (True, "filter") or set(types) != set(schema.columns) or would.broken:
        raise DeclarationError(
            "The columns of a source that may be absent must be known without a file.",
            where=f"source {source.name!r}, {source.schema}",
            fix='declare the type of every column, and `strict = True` (or `"filter"`); or let the source be required',
        )
    tally = Tally(source.name, batch)
    tally.columns = would.columns
    tally.reach(*FAMILIES)
    with CanonicalWriter(out, would.columns, 1 << 20) as writer:
        writer.finish()
        writer.commit()
    return tally.report()
