"""What one pandera check says, as a polars expression where it looks at each row by itself.

Pandera's own check function is called once with a frame that holds no rows; what it selects is kept. A check may be
asked chunk by chunk only when everything in that expression is known to work row by row. Any other check (a mean, a
window, a function that collects) is a `WholeCheck` and sees the whole batch.
"""

from __future__ import annotations

import functools
import json
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.backends.polars import builtin_checks
from pandera.backends.polars.checks import PolarsCheckBackend
from pandera.constants import CHECK_OUTPUT_KEY
from pandera.errors import SchemaErrorReason

from ml_platform.gates.names import literal

assert builtin_checks is not None  # importing it registers what in_range and the like do with polars


@dataclass(frozen=True)
class Rule:
    """A rule that each row keeps or breaks by itself. `breaks` is true (not null) on a row that breaks it."""

    family: str
    check: str
    code: str
    column: str
    breaks: pl.Expr


@dataclass(frozen=True)
class WholeCheck:
    """A check that must see the whole batch. `column` is "" for one on the table."""

    family: str
    check: str
    column: str
    pandera: Any

    def ask(self, frame: pl.LazyFrame) -> bool | pl.LazyFrame:
        """Whether the batch passes, or one column `breaks`, as long as the frame or one row for the whole.

        Raises whatever the team's function raises.
        """
        out = _backend(self.pandera).apply(PolarsData(frame, _key(self.column)))
        if isinstance(out, bool):
            return out
        if not isinstance(out, pl.LazyFrame):
            raise TypeError(f"output type of check_fn not recognized: {type(out)}")
        return out.select(_breaks(pl.col(CHECK_OUTPUT_KEY), self.pandera.ignore_na).alias("breaks"))


def built_in(check: Any) -> bool:
    """Whether it is one of pandera's own, which says the same whenever it is asked."""
    name = getattr(check._check_fn, "__name__", None)
    return name is not None and bool(check.is_builtin_check(name))


def sort_in(check: Any, column: str, empty: pl.LazyFrame, rules: list[Rule], whole: list[WholeCheck]) -> None:
    """Add the check to the rules, or to the whole checks. `empty` has the columns and no rows; "" is the whole table.

    A check that only warns is no part of the verdict, as in pandera.
    """
    family = "values" if column else "rules"
    if check.raise_warning:
        return
    name = str(check.error or check.name or check)
    expression = _expression(check, column, empty)
    if expression is None:
        whole.append(WholeCheck(family, name, column, check))
    else:
        breaks = _breaks(expression, check.ignore_na)
        rules.append(Rule(family, name, SchemaErrorReason.DATAFRAME_CHECK.value, column, breaks))


def _breaks(passes: pl.Expr, ignore_na: bool) -> pl.Expr:
    """Pandera's treatment of a check that says null: it passes, unless the check minds (`ignore_na=False`)."""
    return passes.not_().fill_null(not ignore_na)


class _Recorder(pl.LazyFrame):
    """A frame without rows that keeps what is selected from it, and notes when anything else is asked of it."""

    _harmless = frozenset(
        {"select", "collect_schema", "columns", "dtypes", "schema", "width", "_ldf", "_recorded", "_other"}
    )

    @classmethod
    def of(cls, frame: pl.LazyFrame) -> _Recorder:
        recorder = cls()
        recorder._ldf = frame._ldf
        return recorder

    def __init__(self) -> None:
        self._recorded: list[tuple[tuple[Any, ...], dict[str, Any], pl.LazyFrame]] = []
        self._other = False

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__") and name not in _Recorder._harmless:
            object.__setattr__(self, "_other", True)
        return super().__getattribute__(name)

    def select(self, *exprs: Any, **named: Any) -> pl.LazyFrame:
        """Select as ever, and remember the expressions and the frame that came of them."""
        result = pl.LazyFrame._from_pyldf(self._ldf).select(*exprs, **named)
        self._recorded.append((exprs, named, result))
        return result


def _expression(check: Any, column: str, empty: pl.LazyFrame) -> pl.Expr | None:
    """What the check says of each row by itself; None where it does not look at each row by itself."""
    backend = _backend(check)
    if check.element_wise:
        many = pl.col(_key(column)).map_elements(backend.check_fn, return_dtype=pl.Boolean)
        return many if column else _all_of([many])
    if (few := _few_texts(check, column, empty)) is not None:
        return few
    recorder = _Recorder.of(empty)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = backend.check_fn(PolarsData(recorder, _key(column)))
            if recorder._other or len(recorder._recorded) != 1 or out is not recorder._recorded[0][2]:
                return None
            exprs, named, _ = recorder._recorded[0]
            flat = [e for item in exprs for e in (item if isinstance(item, list | tuple) else [item])]
            flat += named.values()
            flat = [pl.col(e) if isinstance(e, str) else e for e in flat]
            if not all(isinstance(e, pl.Expr) and _by_row(json.loads(e.meta.serialize(format="json"))) for e in flat):
                return None
            return flat[0] if len(out.collect_schema()) == 1 else _all_of(flat)
    except Exception:
        # The function failed on a frame without rows. Whether it fails on the batch is found out there, and said.
        return None


_FEW = 16
"""Texts up to which comparing with each of them is faster than looking them up, by three times at five."""


def _few_texts(check: Any, column: str, empty: pl.LazyFrame) -> pl.Expr | None:
    """Pandera's `isin` of a few texts as comparisons, which say the same; None where it is anything else."""
    allowed = check.statistics.get("allowed_values") if built_in(check) and check.name == "isin" else None
    if not allowed or len(allowed) > _FEW or not all(isinstance(value, str) for value in allowed):
        return None
    if empty.collect_schema().get(column) != pl.String():
        return None
    value = pl.col(_key(column))
    any_of: pl.Expr = functools.reduce(operator.or_, (value == each for each in allowed))
    return any_of


def _key(column: str) -> str:
    """What a check is told of its column; "" is the whole table."""
    return literal(column) if column else "*"


def _backend(check: Any) -> PolarsCheckBackend:
    """Pandera's evaluation of a check. A built-in one is looked up by name, as `Check.__call__` does."""
    if built_in(check):
        check._check_fn = check.get_builtin_check_fn(check._check_fn.__name__)
    return PolarsCheckBackend(check)


def _all_of(expressions: Sequence[pl.Expr]) -> pl.Expr:
    """As pandera joins the columns of a check that returns several."""
    return pl.fold(acc=pl.lit(True), function=lambda both, one: both & one, exprs=expressions)


# Names of polars' functions that look at one row at a time. Whatever is not here is asked of the whole batch.
_ROW_FUNCTIONS = frozenset(
    {"Abs", "Round", "RoundSF", "Floor", "Ceil", "Negate", "Sign", "Pow", "Sqrt", "Cbrt", "Exp", "Log", "Log1p"}
    | {"FillNull", "Coalesce", "Clip", "MinHorizontal", "MaxHorizontal", "SumHorizontal", "MeanHorizontal"}
)
_ROW_BOOLEANS = frozenset(
    {"IsNull", "IsNotNull", "IsNan", "IsNotNan", "IsFinite", "IsInfinite", "Not", "IsIn", "IsBetween", "IsClose"}
    | {"AllHorizontal", "AnyHorizontal"}
)
_ROW_TEXT = frozenset(
    {"Contains", "StartsWith", "EndsWith", "LenChars", "LenBytes", "Lowercase", "Uppercase", "Slice", "Head", "Tail"}
    | {"StripChars", "StripCharsStart", "StripCharsEnd", "StripPrefix", "StripSuffix", "Replace", "Extract"}
    | {"CountMatches", "ZFill", "Reverse"}
)


def _by_row(node: Any) -> bool:
    """Whether an expression, as polars serializes it, looks at each row by itself."""
    if not isinstance(node, dict) or len(node) != 1:
        return False
    ((kind, value),) = node.items()
    if kind in ("Column", "Selector"):
        return True
    if kind == "Literal":
        return "Series" not in value
    if kind == "BinaryExpr":
        return _by_row(value["left"]) and _by_row(value["right"])
    if kind == "Ternary":
        return all(_by_row(value[part]) for part in ("predicate", "truthy", "falsy"))
    if kind == "Cast":
        return _by_row(value["expr"])
    if kind == "Alias":
        return _by_row(value[0])
    if kind == "Function":
        return _function_by_row(value["function"], value["input"])
    return False


def _function_by_row(function: Any, inputs: list[Any]) -> bool:
    group, name = next(iter(function.items())) if isinstance(function, dict) else ("", function)
    if isinstance(name, dict):
        name = next(iter(name)) if group in ("Boolean", "StringExpr", "TemporalExpr") else group
    if group == "Boolean" and name == "IsIn":
        # What is searched is a constant; a column there would stand for all of its rows.
        return _by_row(inputs[0]) and "Literal" in inputs[1]
    known = {
        "": _ROW_FUNCTIONS,
        "Boolean": _ROW_BOOLEANS,
        "StringExpr": _ROW_TEXT,
    }
    by_row = group == "TemporalExpr" or name in known.get(group, _ROW_FUNCTIONS)
    return by_row and all(_by_row(node) for node in inputs)
