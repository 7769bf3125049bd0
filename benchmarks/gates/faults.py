"""What goes wrong with feeds, put into real days at random places.

A fault is asked of a random source among those that it concerns, and of a random column among those where it means
anything; which these are stands beside it. What changes fewer than one value in 25 is no fault and is drawn again
(precipitation times 100 on a dry day): only `changes` says so, never the gate.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

MEASURED: Mapping[str, tuple[str, ...]] = {
    "flights": ("dep_delay", "arr_delay", "air_time", "distance"),
    "weather": ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"),
}
"""Quantities with a unit, not clocks, calendars or numbers that are names."""
MILES: Mapping[str, tuple[str, ...]] = {"flights": ("distance",), "weather": ("wind_speed", "wind_gust", "visib")}
TIMES: Mapping[str, tuple[str, ...]] = {"flights": ("time_hour",), "weather": ("time_hour",)}
LABEL: Mapping[str, tuple[str, ...]] = {"flights": ("arr_delay",)}
CATEGORIES: Mapping[str, tuple[str, ...]] = {"flights": ("carrier", "origin", "dest"), "weather": ("origin",)}
"""Not tail numbers: every day brings new ones."""
TEXTS: Mapping[str, tuple[str, ...]] = {**CATEGORIES, "flights": ("carrier", "origin", "dest", "tailnum")}
VARYING: Mapping[str, tuple[str, ...]] = {
    "flights": (
        *("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "carrier", "flight"),
        *("tailnum", "dest", "air_time", "distance", "hour", "minute", "time_hour"),
    ),
    "weather": ("hour", "temp", "dewp", "humid", "wind_dir", "wind_speed", "pressure", "time_hour"),
}
"""Those with five values or more on every one of the 181 days. Dry days have one of rain, clear ones one of visibility,
calm ones hardly any gusts."""
ANY: Mapping[str, tuple[str, ...]] = {"flights": (), "weather": ()}
"""Every column, or the file as a whole."""

LEAST_CHANGED = 0.04


@dataclass(frozen=True)
class Place:
    """Where a fault is put.

    Args:
        rows: a real day's rows of one source.
        column: one of the fault's columns, any where it names none.
        yesterday: rows of the accepted day before.
        sigma: standard deviation of the column over the four weeks before, 0 for a column without numbers.
        random: the only source of chance.
    """

    rows: pl.DataFrame
    column: str
    yesterday: pl.DataFrame
    sigma: float
    random: np.random.Generator

    def numbers(self, change: Callable[[pl.Expr], pl.Expr]) -> pl.DataFrame:
        """The rows with the column's numbers changed, its type kept: whole numbers stay whole."""
        type_ = self.rows.schema[self.column]
        changed = change(pl.col(self.column).cast(pl.Float64))
        return self.rows.with_columns(
            (changed.round() if type_.is_integer() else changed).cast(type_).alias(self.column)
        )

    def some(self, share: float) -> pl.Expr:
        """A random share of the rows, at least one, as a condition."""
        chosen = self.random.permutation(self.rows.height)[: max(1, round(share * self.rows.height))]
        mask = np.zeros(self.rows.height, dtype=bool)
        mask[chosen] = True
        return pl.lit(pl.Series(mask))


@dataclass(frozen=True)
class Fault:
    """A way to go wrong.

    Args:
        name: in the table.
        kind: "gross": nobody should miss it; "subtle": a person who looks at the file may; "faint": not told
            from what is natural, shown and not counted; "harmless": the gate makes it good, the same rows come out.
        subtle_in: a source where it is subtle though it is gross elsewhere.
        make: the rows as they land.
        columns: by source, those where it means anything; empty: any.
    """

    name: str
    kind: Literal["gross", "subtle", "faint", "harmless"]
    make: Callable[[Place], pl.DataFrame]
    columns: Mapping[str, Sequence[str]]
    subtle_in: str = ""

    def draw(self, random: np.random.Generator, frames: Mapping[str, pl.DataFrame]) -> tuple[str, str]:
        """A random source of it, and a random column."""
        source = str(random.choice(sorted(self.columns)))
        return source, str(random.choice(list(self.columns[source]) or frames[source].columns))


def changes(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    """Whether a fault changed anything worth the name: the table's shape, or one value in 25 of some column."""
    if before.schema != after.schema or before.columns != after.columns or before.height != after.height:
        return True
    different = before.select((pl.col(name).ne_missing(after[name])).mean().alias(name) for name in before.columns)
    return bool(max(different.row(0)) >= LEAST_CHANGED or _is_rare(before, after))


def _is_rare(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    """Bursts of one percent are meant to be rare."""
    return any(
        abs(float(after[name].max() or 0)) >= 5 * abs(float(before[name].max() or 0))  # type: ignore[arg-type]
        and before[name].ne_missing(after[name]).any()
        for name in before.columns
        if before.schema[name].is_numeric()
    )


def _renamed(place: Place) -> pl.DataFrame:
    return place.rows.rename({place.column: f"{place.column}_1"})


def _reordered(place: Place) -> pl.DataFrame:
    names = list(place.rows.columns)
    place.random.shuffle(names)
    return place.rows.select(names)


def _other_type(place: Place) -> pl.DataFrame:
    type_ = place.rows.schema[place.column]
    other = pl.String() if type_ != pl.String else pl.Binary()
    return place.rows.with_columns(pl.col(place.column).cast(other))


def _constant(place: Place) -> pl.DataFrame:
    values = place.rows[place.column].drop_nulls()
    return place.rows.with_columns(pl.lit(values[0], place.rows.schema[place.column]).alias(place.column))


def _swapped(place: Place) -> pl.DataFrame:
    """With another column of the same type."""
    type_ = place.rows.schema[place.column]
    others = [name for name, its in place.rows.schema.items() if its == type_ and name != place.column]
    if not others:
        return place.rows
    other = str(place.random.choice(others))
    return place.rows.with_columns(pl.col(place.column).alias(other), pl.col(other).alias(place.column))


def _category(place: Place, least: float = 0.05) -> str | None:
    """A value with at least five percent of the rows."""
    counts = place.rows[place.column].drop_nulls().value_counts(normalize=True).sort(place.column)
    common = counts.filter(pl.col("proportion") >= least)[place.column].to_list()
    return str(place.random.choice(common)) if common else None


def _another_name(place: Place, like: str) -> str:
    """As long, as capital, and not there."""
    there = set(place.rows[place.column].to_list())
    while True:
        name = "".join(place.random.choice(list(string.ascii_uppercase), len(like)))
        if name not in there:
            return name


def _category_renamed(place: Place) -> pl.DataFrame:
    value = _category(place)
    if value is None:
        return place.rows
    return place.rows.with_columns(pl.col(place.column).replace(value, _another_name(place, value)))


def _category_collapsed(place: Place) -> pl.DataFrame:
    """Into another value of the day."""
    value = _category(place)
    others = sorted(set(place.rows[place.column].drop_nulls().to_list()) - {value})
    if value is None or not others:
        return place.rows
    return place.rows.with_columns(pl.col(place.column).replace(value, str(place.random.choice(others))))


def _new_category(place: Place) -> pl.DataFrame:
    new = _another_name(place, str(place.rows[place.column].drop_nulls()[0]))
    return _put(place, 0.05, pl.lit(new))


def _mixed_encodings(place: Place) -> pl.DataFrame:
    """A fifth of the rows was UTF-16 and is read as Latin-1."""
    broken = [
        None if value is None else value.encode("utf-16-le").decode("latin-1")
        for value in place.rows[place.column].to_list()
    ]
    return _put(place, 0.2, pl.lit(pl.Series(broken, dtype=pl.String)))


def _zone(place: Place) -> pl.DataFrame:
    """UTC taken for New York's clock or the other way round, or summer time forgotten or twice."""
    hours = int(place.random.choice([-5, -1, 1, 5]))
    return place.rows.with_columns(pl.col(place.column) + pl.duration(hours=hours))


def _doubled(place: Place) -> pl.DataFrame:
    """Five percent of the rows come twice."""
    return pl.concat([place.rows, place.rows.filter(place.some(0.05))])


def _shuffled(place: Place) -> pl.DataFrame:
    """Among the rows that have one."""
    values = place.rows[place.column].to_numpy().copy()
    there = place.rows[place.column].is_not_null().to_numpy()
    values[there] = place.random.permutation(values[there])
    return _series(place, values)


def _outliers(place: Place) -> pl.DataFrame:
    """One percent of the values, at least one, is ten times the day's largest, in either direction."""
    there = np.flatnonzero(place.rows[place.column].is_not_null().to_numpy())
    if not len(there):
        return place.rows
    chosen = place.random.permutation(there)[: max(1, round(0.01 * len(there)))]
    mask = np.zeros(place.rows.height, dtype=bool)
    mask[chosen] = True
    largest = float(place.rows[place.column].cast(pl.Float64).abs().max() or 0)  # type: ignore[arg-type]
    value = 10 * largest * float(place.random.choice([-1, 1]))
    return place.numbers(lambda column: pl.when(pl.lit(pl.Series(mask))).then(value).otherwise(column))


def _shift(place: Place, sigmas: float) -> pl.DataFrame:
    by = sigmas * place.sigma * float(place.random.choice([-1, 1]))
    return place.numbers(lambda column: column + by)


def _put(place: Place, share: float, value: pl.Expr) -> pl.DataFrame:
    chosen = pl.when(place.some(share)).then(value).otherwise(pl.col(place.column))
    return place.rows.with_columns(chosen.cast(place.rows.schema[place.column]).alias(place.column))


def _series(place: Place, values: np.typing.NDArray[np.generic]) -> pl.DataFrame:
    series = pl.Series(place.column, values).fill_nan(None).cast(place.rows.schema[place.column])
    return place.rows.with_columns(series)


FAULTS: tuple[Fault, ...] = (
    Fault("unit: x 100", "gross", lambda place: place.numbers(lambda column: column * 100), MEASURED),
    Fault("unit: / 1000", "gross", lambda place: place.numbers(lambda column: column / 1000), MEASURED),
    Fault("unit: miles to km", "subtle", lambda place: place.numbers(lambda column: column * 1.609344), MILES),
    Fault("column renamed", "gross", _renamed, ANY),
    Fault("column dropped", "gross", lambda place: place.rows.drop(place.column), ANY),
    Fault("column added", "gross", lambda place: place.rows.with_columns(pl.lit(1).alias("new_column")), ANY),
    Fault("columns reordered", "harmless", _reordered, ANY),
    Fault("type changed", "gross", _other_type, ANY),
    Fault("nulls: 5 %", "subtle", lambda place: _put(place, 0.05, pl.lit(None)), ANY),
    Fault("column constant", "gross", _constant, VARYING),
    Fault("columns swapped", "gross", _swapped, ANY),
    Fault("category renamed", "gross", _category_renamed, CATEGORIES),
    Fault("category collapsed", "subtle", _category_collapsed, CATEGORIES),
    Fault("new category: 5 %", "gross", _new_category, CATEGORIES),
    Fault("time zone shifted", "gross", _zone, TIMES),
    Fault("truncated: 10 % kept", "gross", lambda place: place.rows.head(max(1, place.rows.height // 10)), ANY),
    Fault("truncated: 50 % kept", "gross", lambda place: place.rows.head(place.rows.height // 2), ANY),
    Fault("truncated: 90 % kept", "subtle", lambda place: place.rows.head(round(place.rows.height * 0.9)), ANY),
    Fault("rows doubled: 5 %", "gross", _doubled, ANY),
    Fault("yesterday's file again", "gross", lambda place: place.yesterday, ANY),
    Fault("label shuffled", "subtle", _shuffled, LABEL),
    # Within what days differ by: the wind makes a quarter of an hour for all flights.
    Fault("label shifted: 15 min", "faint", lambda place: place.numbers(lambda column: column + 15), LABEL),
    # An arrival's clock that is read in New York's zone, but stands in Chicago's.
    Fault("label shifted: 60 min", "subtle", lambda place: place.numbers(lambda column: column + 60), LABEL),
    Fault("sign flipped", "gross", lambda place: place.numbers(lambda column: -column), MEASURED),
    Fault("outliers: 1 %", "subtle", _outliers, MEASURED),
    Fault("mixed encodings", "gross", _mixed_encodings, TEXTS),
    Fault("mean shifted: 1 sigma", "subtle", lambda place: _shift(place, 1), MEASURED),
    # The weather of a whole day is alike: a mean that is 3 sigma away comes by itself once in a season or two.
    Fault("mean shifted: 3 sigma", "gross", lambda place: _shift(place, 3), MEASURED, subtle_in="weather"),
)
