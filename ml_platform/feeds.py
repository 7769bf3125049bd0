"""Where a pipeline's data comes from: feeds that are cut into batches, and reference tables that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ml_platform import declared
from ml_platform.errors import DeclarationError
from ml_platform.naming import check_named, columns_of

Format = Literal["parquet", "csv"]
Complete = Literal["still", "marker", "checksum"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One feed, cut into batches. Its files land at `<landing>/<pipeline>/<name>/<batch>.<format>`.

    Args:
        name: lower-case identifier, unique among the pipeline's sources and references.
        schema: "module:attribute" of a `pandera.polars` DataFrameModel or DataFrameSchema.
        format: how the files are encoded.
        known_later: columns that are not known yet when a prediction is asked for. They may build the label and
            must never be features.
        complete: when a landed file counts as complete, for whoever looks. "still": it has not changed for a while (an
            object store shows whole objects only). "marker": a file of its name with `.done` behind it stands
            beside it, and is no older. "checksum": likewise with `.sha256`, which holds the file's SHA-256 as
            `sha256sum` writes it.
        required: whether a batch waits for it until it lands. One that is not required is waited for up to the deadline
            (`NewData.deadline_hours`); then the batch is taken without, and its frame has no rows of that batch. Its
            schema must be strict and name every column's type. When it lands after all, the batch is taken again.
    """

    name: str
    schema: str
    format: Format = "parquet"
    known_later: tuple[str, ...] = ()
    complete: Complete = "still"
    required: bool = True

    def __post_init__(self) -> None:
        _check_feed("Source", self.name, self.schema, self.format)
        where = f"Source {self.name!r}"
        if self.complete not in ("still", "marker", "checksum"):
            raise DeclarationError(
                "It cannot be known in this way when a file is complete.",
                where=where,
                got=repr(self.complete),
                fix="still, marker or checksum",
            )
        # A list becomes a tuple: the dataclass is frozen.
        object.__setattr__(self, "known_later", declared.tuple_of(where, "known_later", self.known_later, str))
        columns = columns_of(self.schema) if self.known_later else None
        if columns is not None and (wrong := [name for name in self.known_later if name not in columns]):
            raise DeclarationError(
                "The schema names no such column as is said to be known later.",
                where=f"{where}, {self.schema}",
                got=", ".join(wrong),
                fix="correct the spelling: a name that is not in the data guards nothing",
            )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A slowly changing table, not cut into batches. Lands at `<landing>/<pipeline>/references/<name>.<format>`."""

    name: str
    schema: str
    format: Format = "parquet"

    def __post_init__(self) -> None:
        _check_feed("Reference", self.name, self.schema, self.format)


def _check_feed(kind: str, name: str, schema: str, format_: str) -> None:
    declared.identifier(kind, name)
    check_named(f"{kind} {name!r}, schema", schema, "schema")
    if format_ not in ("parquet", "csv"):
        raise DeclarationError("Unknown format.", where=f"{kind} {name!r}", got=format_, fix="parquet or csv")
