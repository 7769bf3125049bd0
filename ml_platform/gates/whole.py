"""Asks a check that must see the whole batch, and says which rows break it where it names any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
from pandera.errors import SchemaErrorReason

from ml_platform.gates.expressions import WholeCheck
from ml_platform.gates.judging import CHECK_CRASHES, crash
from ml_platform.gates.report import MAX_CASES, BrokenRule
from ml_platform.gates.tally import show

_ROW, _BREAKS = "\0row", "\0breaks"
"""No names that a column has."""


def ask_whole(
    whole: WholeCheck, batch: pl.LazyFrame, rows: int, place: Callable[[int], int]
) -> tuple[BrokenRule | None, list[Mapping[str, Any]]]:
    """What the check says of a batch.

    Args:
        whole: the check.
        batch: the rows, streamed as far as the check lets polars.
        rows: how many they are.
        place: the row of the landed file by the row of the batch.

    Returns:
        The rule that is broken, None where it is kept; and up to 20 rows that break it.
    """
    try:
        return _ask(whole, batch, rows, place)
    except CHECK_CRASHES as error:
        return crash(whole.check, whole.column, error), []


def _ask(
    whole: WholeCheck, batch: pl.LazyFrame, rows: int, place: Callable[[int], int]
) -> tuple[BrokenRule | None, list[Mapping[str, Any]]]:
    code, column, check = SchemaErrorReason.DATAFRAME_CHECK.value, whole.column, whole.check
    answer = whole.ask(batch)
    if isinstance(answer, bool):
        answered, failures = 0, 0 if answer else 1
    else:
        answer = answer.rename({"breaks": _BREAKS})
        counted = answer.select(pl.len().alias("rows"), pl.col(_BREAKS).sum().alias("failures"))
        answered, failures = counted.collect(engine="streaming").row(0)
    if not failures:
        return None, []
    if isinstance(answer, bool) or answered != rows:
        message = f"the batch as a whole breaks {check}" + (f" on {column}" if column else "")
        return BrokenRule(check=check, code=code, column=column, message=message), []
    both = pl.concat([batch.with_row_index(_ROW), answer], how="horizontal").filter(_BREAKS).drop(_BREAKS)
    first = both.head(MAX_CASES).collect(engine="streaming")
    records = first.drop(_ROW)
    cases: list[Mapping[str, Any]] = [
        show(records, index, place(row), column, check) for index, row in enumerate(first[_ROW].to_list())
    ]
    return BrokenRule(check=check, code=code, column=column, failures=failures), cases
