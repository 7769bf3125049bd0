"""Turns a team's pandera schema into expressions that are evaluated together, in one pass over a chunk.

`schema.validate` collects every check several times over. Here pandera's own check functions are called once with a
frame that holds no rows; what they select is kept as a polars expression, and pandera's own treatment of nulls is
added. The verdict is pandera's (the tests compare the two on random data), the cost is that of bare polars, and no
switch of pandera (PANDERA_VALIDATION_ENABLED, a depth, a LazyFrame) turns a check off.

A check may be asked chunk by chunk only when it looks at each row by itself. That is decided from the expression:
everything in it must be known to work row by row. Any other check (a mean, a window, a function that collects) is a
`WholeCheck` and sees the whole batch.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandera.backends.polars.builtin_checks  # registers what in_range and the like do with polars
import pandera.polars as pa
import polars as pl
from pandera.api.polars.types import PolarsData
from pandera.backends.polars.checks import PolarsCheckBackend
from pandera.backends.polars.container import DataFrameSchemaBackend
from pandera.config import ValidationDepth, config_context
from pandera.constants import CHECK_OUTPUT_KEY
from pandera.errors import SchemaErrorReason, SchemaErrors

from ml_platform.errors import DeclarationError
from ml_platform.gates.report import BrokenRule
from ml_platform.pipeline import load_named

COLUMN_CODES = {
    SchemaErrorReason.COLUMN_NOT_IN_SCHEMA,
    SchemaErrorReason.COLUMN_NOT_ORDERED,
    SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME,
    SchemaErrorReason.ADD_MISSING_COLUMN_NO_DEFAULT,
    SchemaErrorReason.INVALID_COLUMN_NAME,
    SchemaErrorReason.DUPLICATE_COLUMN_LABELS,
    SchemaErrorReason.WRONG_FIELD_NAME,
}


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
        out = _backend(self.pandera).apply(PolarsData(frame, self.column or "*"))
        if isinstance(out, bool):
            return out
        if not isinstance(out, pl.LazyFrame):
            raise TypeError(f"output type of check_fn not recognized: {type(out)}")
        return out.select(_breaks(pl.col(CHECK_OUTPUT_KEY), self.pandera.ignore_na).alias("breaks"))


@dataclass(frozen=True)
class Plan:
    """What a schema asks of files with certain columns.

    Args:
        columns: names and types after parsing, in the order of the canonical file.
        parse: what pandera does before it checks (coerce, defaults, filtering); None where it changes nothing.
        casts: columns whose type changes while parsing, with the type they get.
        rules: asked of every chunk.
        whole: asked of the whole batch.
        keys: sets of columns that must be unique together.
        broken: what is wrong with the columns and types themselves, by family; with any, nothing else is asked.
    """

    columns: dict[str, pl.DataType] = field(default_factory=dict)
    parse: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None
    casts: dict[str, pl.DataType] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    whole: tuple[WholeCheck, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    broken: dict[str, tuple[BrokenRule, ...]] = field(default_factory=dict)


@functools.cache
def load_schema(name: str) -> pa.DataFrameSchema:
    """The pandera.polars schema that "module:attribute" names; a model becomes its schema.

    Raises:
        DeclarationError: it cannot be imported, is no pandera.polars schema, or uses what a gate does not honour.
    """
    try:
        loaded = load_named(name)
        schema = loaded.to_schema() if isinstance(loaded, type) and issubclass(loaded, pa.DataFrameModel) else loaded
    except Exception as error:
        raise DeclarationError(
            "A schema cannot be loaded.", where=name, got=f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(schema, pa.DataFrameSchema):
        raise DeclarationError(
            "Not a schema of pandera.polars.",
            where=name,
            got=type(schema).__module__ + "." + type(schema).__name__,
            fix="import pandera.polars as pa; declare a pa.DataFrameModel or a pa.DataFrameSchema",
        )
    if schema.drop_invalid_rows or any(column.drop_invalid_rows for column in schema.columns.values()):
        raise DeclarationError(
            "A gate does not drop rows without a word.", where=name, got="drop_invalid_rows=True", fix="remove it"
        )
    return schema


def declared_types(schema: pa.DataFrameSchema, names: Sequence[str]) -> dict[str, pl.DataType]:
    """The polars type that the schema declares for each of a file's columns; those without one are left out."""
    empty = pl.DataFrame(schema=dict.fromkeys(names, pl.String())).lazy()
    found = {}
    for component in _components(schema, empty):
        for name in _names(component, empty):
            type_ = getattr(component.dtype, "type", None)
            if isinstance(type_, pl.DataType) or (isinstance(type_, type) and issubclass(type_, pl.DataType)):
                found[name] = type_ if isinstance(type_, pl.DataType) else type_()
    return found


@functools.lru_cache(maxsize=256)
def _static(name: str, columns: tuple[tuple[str, pl.DataType], ...]) -> Plan:
    """The part of a plan that needs no call of a team's function."""
    schema = load_schema(name)
    empty = pl.DataFrame(schema=dict(columns))
    try:
        # Types and columns are pandera's own verdict, on a frame without rows.
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_ONLY):
            parsed = schema.validate(empty, lazy=True)
    except SchemaErrors as errors:
        return Plan(columns=dict(columns), broken=_schema_failures(errors, schema, empty))
    except (pl.exceptions.PolarsError, NotImplementedError) as error:
        raise DeclarationError("pandera cannot use this schema.", where=name, got=error) from error
    first = [n for c in _components(schema, parsed.lazy()) for n in _names(c, parsed.lazy())]
    order = dict.fromkeys([*first, *parsed.columns])
    after = {column: parsed.schema[column] for column in order}
    before = dict(columns)
    changes = [column for column, type_ in after.items() if before.get(column) != type_]
    defaults = any(column.default is not None for column in schema.columns.values())
    parse = functools.partial(_parse, schema) if changes or defaults or len(after) != len(before) else None
    casts = {column: after[column] for column in changes if column in before}
    return Plan(columns=after, parse=parse, casts=casts, keys=_keys(schema, parsed))


def plan(name: str, columns: dict[str, pl.DataType]) -> Plan:
    """What the schema of that name asks of a file with these columns (as read, text already turned into types).

    Raises:
        DeclarationError: see `load_schema`; or pandera cannot use the schema at all.
    """
    static = _static(name, tuple(columns.items()))
    if static.broken:
        return static
    rules, whole = [], []
    empty = pl.DataFrame(schema=static.columns).lazy()
    schema = load_schema(name)
    for component in _components(schema, empty):
        for column in _names(component, empty):
            rules += _built_in(column, static.columns[column], nullable=component.nullable)
            for check in component.checks:
                _sort_in(check, "values", column, empty, rules, whole)
    for column, type_ in static.columns.items():
        if isinstance(type_, pl.Datetime) and type_.time_unit == "ns":
            finer = pl.col(column).dt.nanosecond() % 1000 != 0
            rules.append(Rule("types", "microseconds", "finer_than_microseconds", column, finer))
    for check in schema.checks:
        _sort_in(check, "rules", "", empty, rules, whole)
    return Plan(
        columns=static.columns,
        parse=static.parse,
        casts=static.casts,
        rules=tuple(rules),
        whole=tuple(whole),
        keys=static.keys,
    )


def label(check: Any) -> str:
    """How a check is called in a report: its error text, its name."""
    return str(check.error or check.name or check)


def _built_in(column: str, type_: pl.DataType, *, nullable: bool) -> list[Rule]:
    if nullable:
        return []
    missing = pl.col(column).is_null()
    if type_.is_float():
        missing = missing | pl.col(column).is_nan()
    return [Rule("nulls", "not_nullable", SchemaErrorReason.SERIES_CONTAINS_NULLS.value, column, missing)]


def _sort_in(
    check: Any, family: str, column: str, empty: pl.LazyFrame, rules: list[Rule], whole: list[WholeCheck]
) -> None:
    if check.raise_warning:
        return  # pandera lets it pass: it is no part of the verdict
    name = label(check)
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
        recorder._recorded = []
        recorder._other = False
        return recorder

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
        many = pl.col(column or "*").map_elements(backend.check_fn, return_dtype=pl.Boolean)
        return many if column else _all_of([many])
    recorder = _Recorder.of(empty)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = backend.check_fn(PolarsData(recorder, column or "*"))
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


def _backend(check: Any) -> PolarsCheckBackend:
    """Pandera's evaluation of a check. A built-in one is looked up by name, as `Check.__call__` does."""
    name = getattr(check._check_fn, "__name__", None)
    if name is not None and check.is_builtin_check(name):
        check._check_fn = check.get_builtin_check_fn(name)
    return PolarsCheckBackend(check)


def _all_of(expressions: Sequence[pl.Expr]) -> pl.Expr:
    """As pandera joins the columns of a check that returns several."""
    return pl.fold(acc=pl.lit(True), function=lambda both, one: both & one, exprs=expressions)


# Names of polars' functions that look at one row at a time. Whatever is not here is asked of the whole batch.
_ROW_FUNCTIONS = frozenset(
    "Abs Round RoundSF Floor Ceil Negate Sign Pow Sqrt Cbrt Exp Log Log1p FillNull Coalesce Clip MinHorizontal "
    "MaxHorizontal SumHorizontal MeanHorizontal".split()
)
_ROW_BOOLEANS = frozenset(
    "IsNull IsNotNull IsNan IsNotNan IsFinite IsInfinite Not IsIn IsBetween IsClose AllHorizontal AnyHorizontal".split()
)
_ROW_TEXT = frozenset(
    "Contains StartsWith EndsWith LenChars LenBytes Lowercase Uppercase StripChars StripCharsStart StripCharsEnd "
    "StripPrefix StripSuffix Slice Head Tail Replace Extract CountMatches ZFill Reverse".split()
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


def _parse(schema: pa.DataFrameSchema, frame: pl.LazyFrame) -> pl.LazyFrame:
    """What pandera does to a frame before it checks it, in pandera's order, without collecting it."""
    backend = DataFrameSchemaBackend()
    info = backend.collect_column_info(frame, schema)
    frame = backend.add_missing_columns(frame, schema, info)
    frame = backend.strict_filter_columns(frame, schema, info)
    with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_ONLY):
        # At this depth pandera casts without looking; a value that does not fit is met when the frame is collected.
        frame = backend.coerce_dtype(frame, schema)
    result: pl.LazyFrame = backend.set_default(frame, schema)
    return result


def _components(schema: pa.DataFrameSchema, frame: pl.LazyFrame) -> list[Any]:
    backend = DataFrameSchemaBackend()
    try:
        components: list[Any] = backend.collect_schema_components(
            frame, schema, backend.collect_column_info(frame, schema)
        )
    except pa.errors.SchemaError:
        return []  # a pattern that no column matches: said by pandera's verdict on the columns
    return components


def _names(component: Any, frame: pl.LazyFrame) -> list[str]:
    if component.regex:
        return frame.select(pl.col(component.selector)).collect_schema().names()
    return [component.name] if component.name in frame.collect_schema().names() else []


def _keys(schema: pa.DataFrameSchema, parsed: pl.DataFrame) -> tuple[tuple[str, ...], ...]:
    together = schema.unique or []
    groups = [together] if all(isinstance(name, str) for name in together) else list(together)
    keys = [tuple(name for name in group if name in parsed.columns) for group in groups]
    for component in _components(schema, parsed.lazy()):
        if component.unique:
            keys += [(name,) for name in _names(component, parsed.lazy())]
    return tuple(dict.fromkeys(key for key in keys if key))


def _schema_failures(
    errors: SchemaErrors, schema: pa.DataFrameSchema, frame: pl.DataFrame
) -> dict[str, tuple[BrokenRule, ...]]:
    found: dict[str, list[BrokenRule]] = {}
    for error in errors.schema_errors:
        family = "columns" if error.reason_code in COLUMN_CODES else "types"
        column = str(error.column_name or "")
        message = str(error).split("\n")[0]
        if error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_SCHEMA:
            known = DataFrameSchemaBackend().collect_column_info(frame.lazy(), schema).expanded_column_names
            column = ", ".join(name for name in frame.columns if name not in known)
            message = f"the schema has no column {column}"
        elif error.reason_code is SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
            column = str(error.failure_cases)
            message = f"the file has no column {column} (it has {', '.join(frame.columns)})"
        elif error.reason_code is SchemaErrorReason.COLUMN_NOT_ORDERED:
            column = str(error.failure_cases)
        rule = BrokenRule(check=str(error.check), code=error.reason_code.value, column=column, message=message)
        found.setdefault(family, []).append(rule)
    return {family: tuple(dict.fromkeys(rules)) for family, rules in found.items()}
