"""Turns a team's pandera schema into expressions that are evaluated together, in one pass over a chunk.

`schema.validate` collects every check several times over. Here the columns and types are pandera's own verdict, on a
frame without rows; the checks are pandera's own functions, kept as polars expressions (`ml_platform.gates.expressions`)
with pandera's own treatment of nulls. The verdict is pandera's (the tests compare the two on random data), the cost is
that of bare polars, and no switch of pandera (PANDERA_VALIDATION_ENABLED, a depth, a LazyFrame) turns a check off.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.backends.polars.container import DataFrameSchemaBackend
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrorReason, SchemaErrors

from ml_platform.errors import DeclarationError
from ml_platform.gates.expressions import Rule, WholeCheck, built_in, sort_in
from ml_platform.gates.names import literal
from ml_platform.gates.report import BrokenRule
from ml_platform.naming import load_named

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
class Plan:
    """What a schema asks of files with certain columns.

    Args:
        columns: names and types after parsing, in the order of the canonical file.
        parse: what pandera does before it checks (coerce, defaults, filtering); None where it changes nothing.
        casts: columns whose type changes while parsing, with the type they get.
        rules: asked of every chunk.
        whole: asked of the whole batch.
        keys: sets of columns that must be unique together.
        checks: (column or "", check) of the team's own checks, which `plan` turns into rules and whole checks.
        broken: what is wrong with the columns and types themselves, by family; with any, nothing else is asked.
    """

    columns: dict[str, pl.DataType] = field(default_factory=dict)
    parse: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None
    casts: dict[str, pl.DataType] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    whole: tuple[WholeCheck, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    checks: tuple[tuple[str, Any], ...] = ()
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
    if unclear := _unclear(schema, empty):
        return Plan(columns=dict(columns), broken={"columns": unclear})
    try:
        # Types and columns are pandera's own verdict, on a frame without rows.
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_ONLY):
            parsed = schema.validate(empty, lazy=True)
    except SchemaErrors as errors:
        return Plan(columns=dict(columns), broken=_schema_failures(errors, schema, empty))
    except (pl.exceptions.PolarsError, NotImplementedError) as error:
        raise DeclarationError("pandera cannot use this schema.", where=name, got=error) from error
    # In the schema's order; a pattern's columns in the file's (pandera's expansion of patterns has no fixed order).
    order = dict.fromkeys(
        name
        for key, column in schema.columns.items()
        for name in (parsed.columns if column.regex else [key])
        if name in parsed.columns and (name == key or re.fullmatch(key, name))
    )
    order |= dict.fromkeys(parsed.columns)
    place = {name: index for index, name in enumerate(order)}
    components = [(name, c) for c in _components(schema, parsed.lazy()) for name in _names(c, parsed.lazy())]
    components.sort(key=lambda item: place[item[0]])
    after = {column: parsed.schema[column] for column in order}
    before = dict(columns)
    changes = [column for column, type_ in after.items() if before.get(column) != type_]
    defaults = any(column.default is not None for column in schema.columns.values())
    parse = functools.partial(_parse, schema) if changes or defaults or len(after) != len(before) else None
    casts = {column: after[column] for column in changes if column in before}
    rules = [rule for column, c in components if not c.nullable for rule in [_filled(column, after[column])]]
    rules += [
        _not_too_fine(column)
        for column, type_ in after.items()
        if isinstance(type_, pl.Datetime) and type_.time_unit == "ns"
    ]
    whole: list[WholeCheck] = []
    checks = [(column, check) for column, c in components for check in c.checks]
    checks += [("", check) for check in schema.checks]
    for column, check in checks:
        if built_in(check):
            sort_in(check, column, parsed.lazy(), rules, whole)
    checks = [(column, check) for column, check in checks if not built_in(check)]
    keys = _keys(schema, parsed.columns, [column for column, c in components if c.unique])
    return Plan(
        columns=after,
        parse=parse,
        casts=casts,
        rules=tuple(rules),
        whole=tuple(whole),
        keys=keys,
        checks=tuple(checks),
    )


def plan(name: str, columns: dict[str, pl.DataType]) -> Plan:
    """What the schema of that name asks of a file with these columns (as read, text already turned into types).

    Raises:
        DeclarationError: see `load_schema`; or pandera cannot use the schema at all.
    """
    static = _static(name, tuple(columns.items()))
    if static.broken:
        return static
    # The team's functions are called anew for every file: what they return may depend on the time of day.
    rules, whole = list(static.rules), list(static.whole)
    empty = pl.DataFrame(schema=static.columns).lazy()
    for column, check in static.checks:
        sort_in(check, column, empty, rules, whole)
    return replace(static, rules=tuple(rules), whole=tuple(whole))


def _filled(column: str, type_: pl.DataType) -> Rule:
    missing = pl.col(literal(column)).is_null()
    if type_.is_float():
        missing = missing | pl.col(literal(column)).is_nan()
    return Rule("nulls", "not_nullable", SchemaErrorReason.SERIES_CONTAINS_NULLS.value, column, missing)


def _not_too_fine(column: str) -> Rule:
    """Canonical files keep microseconds; what would be cut off is refused instead."""
    finer = pl.col(literal(column)).dt.nanosecond() % 1000 != 0
    return Rule("types", "whole microseconds", "finer_than_microseconds", column, finer)


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


def _unclear(schema: pa.DataFrameSchema, frame: pl.DataFrame) -> tuple[BrokenRule, ...]:
    """Columns that the schema asks something of, by a name that pandera takes for a pattern of other names."""
    names = {name for component in _components(schema, frame.lazy()) for name in _names(component, frame.lazy())}
    code = SchemaErrorReason.INVALID_COLUMN_NAME.value
    return tuple(
        BrokenRule(
            check="a name that is no pattern",
            code=code,
            column=name,
            message=f"the schema declares the column {name!r}, whose name is a pattern to pandera: it cannot be judged",
        )
        for name in sorted(names)
        if literal(name) != name
    )


def _keys(schema: pa.DataFrameSchema, names: Sequence[str], alone: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    together = schema.unique or []
    groups = [together] if all(isinstance(name, str) for name in together) else list(together)
    keys = [tuple(name for name in group if name in names) for group in groups]
    return tuple(dict.fromkeys(key for key in [*keys, *((name,) for name in alone)] if key))


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
