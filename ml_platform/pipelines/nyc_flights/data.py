"""The real data, as package data, cut into the batches that a feed would bring day by day. See data/README.md."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

DAILY = ("flights", "weather")


def sample() -> Iterator[tuple[str, str | None, pa.Table]]:
    """Yield every table to land.

    Returns:
        (feed, batch, table): for "flights" and "weather" one table for each of 181 local days, such as "2013-01-01",
        the hours of a day being those of its year, month and day in New York; and "planes" once, batch None. Rows and
        values are those of the files; times are cut to microseconds, the finest that Spark reads.
    """
    for feed in DAILY:
        table = _read(feed)
        dates = zip(*(table[part].to_pylist() for part in ("year", "month", "day")), strict=True)
        days = [f"{year:04d}-{month:02d}-{day:02d}" for year, month, day in dates]
        rows: dict[str, list[int]] = {}
        for row, day in enumerate(days):
            rows.setdefault(day, []).append(row)
        for day in sorted(rows):
            yield feed, day, table.take(rows[day])
    yield "planes", None, _read("planes")


def _read(name: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files(__package__).joinpath("data", f"{name}.parquet").open("rb") as file:
        table = pq.read_table(file)
    for place, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            micro = pa.timestamp("us", column.type.tz)
            table = table.set_column(place, column.name, table[column.name].cast(micro))
    return table
