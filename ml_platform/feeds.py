"""Where a pipeline's data comes from: feeds that are cut into batches, and reference tables that are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ml_platform import declared
from ml_platform.errors import DeclarationError
from ml_platform.gates.declaration import Limits
from ml_platform.naming import check_named, columns_of

Format = Literal["parquet", "csv"]
Complete = Literal["still", "marker", "checksum"]
Engine = Literal["polars", "spark"]


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
        quarantine: share of a batch's rows, 0 to 1, up to which rows that break a rule are set aside and the others
            accepted. With more of them, and always with 0, the whole batch is rejected.
        time: column of times or dates that must lie in the batch's day, where batches are days.
        late_hours: hours after the end of its day from which a batch is late, which is told as a warning.
        drift: limits by column in place of the pipeline's (`BatchGate.drift`); None: the column is not compared.
        engine: what the schema runs on: "polars", streaming on one machine, or "spark", for batches that are too
            large for that. Both come to the same verdict.
    """

    name: str
    schema: str
    format: Format = "parquet"
    known_later: tuple[str, ...] = ()
    complete: Complete = "still"
    required: bool = True
    quarantine: float = 0.0
    time: str | None = None
    late_hours: float | None = None
    drift: Mapping[str, Limits | None] = field(default_factory=dict)
    engine: Engine = "polars"

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
        self._check_gate(where)
        # A list becomes a tuple: the dataclass is frozen.
        object.__setattr__(self, "known_later", declared.tuple_of(where, "known_later", self.known_later, str))
        named = {"known_later": self.known_later, "time": (self.time,) if self.time else (), "drift": tuple(self.drift)}
        columns = columns_of(self.schema) if any(named.values()) else None
        for field_, names in named.items():
            if columns is not None and (wrong := [name for name in names if name not in columns]):
                raise DeclarationError(
                    f"The schema names no such column as `{field_}` does.",
                    where=f"{where}, {self.schema}",
                    got=", ".join(wrong),
                    fix="correct the spelling: a name that is not in the data guards nothing",
                )

    def _check_gate(self, where: str) -> None:
        if not (declared.is_finite(self.quarantine) and 0 <= self.quarantine <= 1):
            raise DeclarationError(
                "The share of rows that may be set aside lies in 0 to 1.", where=where, got=repr(self.quarantine)
            )
        if self.late_hours is not None and not (declared.is_finite(self.late_hours) and self.late_hours >= 0):
            raise DeclarationError("Hours are counted from 0.", where=f"{where}, late_hours", got=repr(self.late_hours))
        if self.engine not in ("polars", "spark"):
            raise DeclarationError("Unknown engine.", where=where, got=repr(self.engine), fix="polars or spark")
        if self.time is not None:
            declared.text(where, "time", self.time)
        declared.instance(where, "drift", self.drift, Mapping)
        for column, limits in self.drift.items():
            if limits is not None:
                declared.instance(f"{where}, drift", column, limits, Limits)

    def judged_by(self) -> dict[str, Any]:
        """What of the declaration decides a verdict, beside the schema, as plain values."""
        drift = {column: asdict(limits) if limits else None for column, limits in sorted(self.drift.items())}
        return {"quarantine": self.quarantine, "time": self.time, "late_hours": self.late_hours, "drift": drift}


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
