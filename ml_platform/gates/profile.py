"""What one batch looks like, in some twenty kilobytes: kept beside it, so that later batches can be compared with it.

    profiler = Profiler(frame.schema)
    for chunk in chunks:
        profiler.add(chunk)
    profile = profiler.profile()

Rows, missing values, the least and the most are counted of every row. All else is of `rows_sketched` of them: all rows
of a batch of up to 100,000, and of a larger one every second, fourth, ... so that 50,000 to 100,000 are left. A sample
of that size is off by less than half a percent of a standard deviation, much less than what batches differ by, and the
gate stays as fast as its checks. Which rows are taken is decided by their place in the file alone, and sketched at the
end: the same rows in the same order give the same bytes, however they were cut into chunks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from ml_platform.gates.association import MOST_COLUMNS, Pairs
from ml_platform.gates.figures import Figures
from ml_platform.gates.names import literal
from ml_platform.gates.sketches import LARGEST, Floats, Items, Numbers

FORMAT = 3
"""Of a profile's JSON. Raise it whenever the same rows would give another profile: such are not compared."""

Kind = Literal["number", "text", "time", "other"]

SAMPLE = 100_000
"""Most rows that are sketched."""
SAMPLE_BYTES = 64 << 20
"""Most memory for them, as long as a thousand are left."""
LONGEST = 64
"""Characters of a text that are kept."""

_A_DAY = 86_400.0


class OtherFormatError(ValueError):
    """A profile cannot be compared with those of this version of the platform."""


@dataclass(frozen=True, kw_only=True)
class ColumnProfile:
    """One column of a batch.

    Args:
        type: the polars type, as text.
        kind: "number" (also Boolean, and Duration in seconds), "text", "time" (Datetime, Date, Time), "other": of those
            only `nulls` is known.
        nulls: rows without a value, not-a-number included; of all rows.
        infinite: rows with an infinite value; of all rows.
        least, most: of all rows; times in seconds since 1970. None where there is no value, and of texts.
        numbers: of a number its values, of a text its length in characters, of a time its second of the UTC day; of
            the rows sketched, without infinite ones, and `LARGEST` where they are larger.
        items: frequent and distinct values of numbers and texts; of the rows sketched.
    """

    type: str
    kind: Kind
    nulls: int
    infinite: int = 0
    least: float | None = None
    most: float | None = None
    numbers: Numbers = field(default_factory=Numbers)
    items: Items = field(default_factory=Items)

    def merge(self, other: ColumnProfile) -> ColumnProfile:
        """Of both together. Raises ValueError where the types differ."""
        if self.type != other.type:
            raise ValueError(f"a column is {self.type} here and {other.type} there")
        lows = [value for value in (self.least, other.least) if value is not None]
        highs = [value for value in (self.most, other.most) if value is not None]
        return ColumnProfile(
            type=self.type,
            kind=self.kind,
            nulls=self.nulls + other.nulls,
            infinite=self.infinite + other.infinite,
            least=min(lows, default=None),
            most=max(highs, default=None),
            numbers=self.numbers.merge(other.numbers),
            items=self.items.merge(other.items),
        )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One batch of one source.

    Args:
        rows: how many.
        rows_sketched: of how many of them the sketches are.
        columns: by name, in the order of the file.
        pairs: how columns go together, of the rows sketched.
        outside: rows whose time stamp is not in the batch's day (`Profiler(within=...)`); None where nobody asked.
        copies: rows that are an exact copy of an earlier one; None where not all rows were sketched.
    """

    rows: int
    rows_sketched: int
    columns: Mapping[str, ColumnProfile]
    pairs: Pairs = field(default_factory=Pairs)
    outside: int | None = None
    copies: int | None = None

    @cached_property
    def figures(self) -> Figures:
        """What is compared of it."""
        return Figures.of(self)

    def to_json(self) -> str:
        """JSON text: equal profiles give equal bytes."""
        record = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Profile:
        """The profile that `to_json` wrote.

        Raises:
            OtherFormatError: another version of the platform wrote it, and looked at other things.
        """
        data = json.loads(text)
        if (format_ := data.pop("format", None)) != FORMAT:
            raise OtherFormatError(f"a profile of format {format_}, and this version compares those of {FORMAT}")
        pairs = {**data["pairs"], **{name: tuple(data["pairs"][name]) for name in ("columns", "numeric")}}
        columns = {name: _column(column) for name, column in data["columns"].items()}
        return cls(**{**data, "columns": columns, "pairs": Pairs(**pairs)})

    def merge(self, other: Profile) -> Profile:
        """Of the rows of both, of the columns that both have. Raises ValueError where the types of one differ.

        Where one was sampled more thinly than the other, its rows weigh less in what is sketched.
        """
        asked = self.outside is not None and other.outside is not None
        return Profile(
            rows=self.rows + other.rows,
            rows_sketched=self.rows_sketched + other.rows_sketched,
            columns={
                name: column.merge(other.columns[name])
                for name, column in self.columns.items()
                if name in other.columns
            },
            pairs=self.pairs.merge(other.pairs),
            outside=(self.outside or 0) + (other.outside or 0) if asked else None,
            copies=None,
        )


@dataclass(frozen=True, kw_only=True)
class Within:
    """The time in which a batch's time stamps should lie.

    Args:
        column: of times or dates.
        start, end: seconds since 1970 for a time with a zone, and for one without (or a date) the same of its local
            clock. `end` is not in it.
    """

    column: str
    start: float
    end: float


class Profiler:
    """Makes the profile of a batch chunk by chunk. Memory: at most twice what is sketched.

    Args:
        columns: names and types of the rows to come.
        within: count the rows whose time is outside (`Profile.outside`).
    """

    def __init__(self, columns: Mapping[str, pl.DataType], *, within: Within | None = None) -> None:
        self._kinds = {name: kind_of(type_) for name, type_ in columns.items()}
        self._types = {name: str(type_) for name, type_ in columns.items()}
        texts = {name: pl.String() for name, kind in self._kinds.items() if kind == "text"}
        self._none = pl.DataFrame(schema={**columns, **texts})
        self._within = within if within is not None and within.column in columns else None
        self._rows, self._outside = 0, 0
        self._sample: list[pl.DataFrame] = []
        self._step = 1
        self._nulls, self._infinite = dict.fromkeys(columns, 0), dict.fromkeys(columns, 0)
        self._ends: dict[str, tuple[float, float]] = {}
        self._exact: list[pl.Expr] = []
        for name, type_ in columns.items():
            value = pl.col(literal(name))
            missing = value.null_count() + value.is_nan().sum() if type_.is_float() else value.null_count()
            self._exact.append(missing.alias(f"nulls {name}"))
            if self._kinds[name] in ("number", "time"):
                self._exact += [_number(value.min(), type_).alias(f"least {name}")]
                self._exact += [_number(value.max(), type_).alias(f"most {name}")]
        if self._within is not None:
            seconds = _number(pl.col(literal(self._within.column)), columns[self._within.column])
            inside = seconds.is_between(self._within.start, self._within.end, closed="left")
            self._exact.append(inside.not_().sum().alias("outside"))

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next rows, in order; of the declared columns and types."""
        if not frame.height:
            return
        found = frame.select(self._exact).row(0, named=True)
        for name in self._nulls:
            self._nulls[name] += int(found[f"nulls {name}"])
            low, high = found.get(f"least {name}"), found.get(f"most {name}")
            if np.isinf([low or 0.0, high or 0.0]).any():
                self._infinite[name] += int(frame[name].is_infinite().sum())
            if low is not None and high is not None and not np.isnan([low, high]).any():
                before = self._ends.get(name, (low, high))
                self._ends[name] = (min(low, before[0]), max(high, before[1]))
        self._outside += int(found.get("outside") or 0)
        while (self._rows + frame.height - 1) // self._step >= SAMPLE:
            self._halve()
        first = -self._rows % self._step
        self._rows += frame.height
        texts = [name for name, kind in self._kinds.items() if kind == "text"]
        taken = frame.gather_every(self._step, first) if self._step > 1 else frame
        if texts:
            taken = taken.with_columns(_head(name) for name in texts)
        self._sample.append(taken)
        while sum(part.height for part in self._sample) > 1000 and self._bytes() > SAMPLE_BYTES:
            self._halve()

    def profile(self) -> Profile:
        """The profile of all rows so far."""
        names = list(self._kinds)
        rows = pl.concat(self._sample).select(map(literal, names)) if self._sample else self._none
        known = [name for name, kind in self._kinds.items() if kind != "other"]
        numbers = rows.select(self._as_number(name) for name in known)
        values: dict[str, Floats] = {}
        for name in known:
            values[name] = _sketchable(numbers[name].to_numpy())
        items = _items(rows, {name: values[name] for name in known if self._kinds[name] != "time"}, self._kinds)
        columns = {}
        for name, kind in self._kinds.items():
            value = values.get(name, np.empty(0))
            low, high = self._ends.get(name, (np.inf, np.inf))
            # An infinite one is no number that JSON knows, and no figure either.
            known_ends = bool(np.isfinite([low, high]).all())
            columns[name] = ColumnProfile(
                type=self._types[name],
                kind=kind,
                nulls=self._nulls[name],
                infinite=self._infinite[name],
                least=low if known_ends else None,
                most=high if known_ends else None,
                numbers=Numbers.of(value[~np.isnan(value)]),
                items=items.get(name, Items()),
            )
        return Profile(
            rows=self._rows,
            rows_sketched=rows.height,
            columns=columns,
            pairs=self._pairs(rows, values),
            outside=self._outside if self._within is not None else None,
            copies=rows.height - rows.n_unique() if self._step == 1 and rows.width and rows.height else None,
        )

    def _pairs(self, rows: pl.DataFrame, values: Mapping[str, Floats]) -> Pairs:
        compared = list(self._kinds)[:MOST_COLUMNS]
        numeric = [name for name in compared if self._kinds[name] in ("number", "time")]
        present = np.empty((rows.height, len(compared)), dtype=np.bool_)
        for place, name in enumerate(compared):
            present[:, place] = ~np.isnan(values[name]) if name in values else rows[name].is_not_null().to_numpy()
        matrix = np.empty((rows.height, len(numeric)))
        for place, name in enumerate(numeric):
            matrix[:, place] = values[name]
        return Pairs.of(compared, present, numeric, matrix)

    def _as_number(self, name: str) -> pl.Expr:
        """One number a row, as `ColumnProfile.numbers` has it; not-a-number where there is none."""
        value = pl.col(literal(name))
        if self._kinds[name] == "text":
            number = value.str.len_chars().cast(pl.Float64)
        elif self._kinds[name] == "time":
            number = _number(value, self._none.schema[name]).mod(_A_DAY)
        else:
            number = _number(value, self._none.schema[name])
        return number.fill_null(np.nan)

    def _bytes(self) -> int:
        return sum(int(part.estimated_size()) for part in self._sample)

    def _halve(self) -> None:
        """Take half as many rows, of those so far and of those to come."""
        self._step *= 2
        start = 0
        for place, part in enumerate(self._sample):
            # One part at a time, so that only one is there twice. A copy: a slice would keep the whole chunk in memory.
            self._sample[place] = part.gather_every(2, start % 2)
            start += part.height
            del part
        if len(self._sample) > 100 and self._bytes() <= SAMPLE_BYTES // 2:
            self._sample = [pl.concat(self._sample, rechunk=True)]


def _head(name: str) -> pl.Expr:
    """The beginning of a text. Put together anew, since polars' slice of a text keeps the whole one in memory."""
    return pl.concat_str(pl.col(literal(name)).cast(pl.String).str.slice(0, LONGEST), pl.lit("")).alias(name)


def kind_of(type_: pl.DataType) -> Kind:
    """What is known of a column of this type."""
    if type_.is_numeric() or isinstance(type_, pl.Boolean | pl.Duration):
        return "number"
    if isinstance(type_, pl.String | pl.Categorical | pl.Enum):
        return "text"
    return "time" if isinstance(type_, pl.Datetime | pl.Date | pl.Time) else "other"


def _number(value: pl.Expr, type_: pl.DataType) -> pl.Expr:
    """The value as a number; times in seconds since 1970, of a clock without zone as if it were UTC."""
    if isinstance(type_, pl.Date):
        return value.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    if isinstance(type_, pl.Datetime):
        return value.dt.epoch("us").cast(pl.Float64) / 1e6
    if isinstance(type_, pl.Time):
        return value.cast(pl.Int64).cast(pl.Float64) / 1e9
    if isinstance(type_, pl.Duration):
        return value.dt.total_microseconds().cast(pl.Float64) / 1e6
    return value.cast(pl.Float64)


def _sketchable(values: Floats) -> Floats:
    """Without infinite ones, and none larger than can be squared and summed."""
    if not (np.abs(values) > LARGEST).any():
        return values
    return np.where(np.isinf(values), np.nan, np.clip(values, -LARGEST, LARGEST))


def _items(rows: pl.DataFrame, values: Mapping[str, Floats], kinds: Mapping[str, Kind]) -> dict[str, Items]:
    """Frequent and distinct values of texts and numbers, texts counted in one query."""
    found = {}
    texts = [name for name in values if kinds[name] == "text"]
    counted = rows.select(pl.col(literal(name)).drop_nulls().value_counts(name="rows").implode() for name in texts)
    for name, value in values.items():
        if kinds[name] == "text":
            # Sorted: the order in which polars counts is not fixed.
            table = counted[name][0].struct.unnest().sort(literal(name))
            found[name] = Items.of(table[name].to_list(), table["rows"].to_list())
        else:
            distinct, counts = np.unique(value[~np.isnan(value)], return_counts=True)
            found[name] = Items.of(distinct.tolist(), counts.tolist())
    return found


def _column(data: Mapping[str, Any]) -> ColumnProfile:
    items = {**data["items"], "counts": tuple((value, count) for value, count in data["items"]["counts"])}
    return ColumnProfile(**{**data, "numbers": Numbers(**data["numbers"]), "items": Items(**items)})
