"""Pieces of metadata that several stages show: column tables, sample rows, inline plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

SAMPLE_ROWS = 5


def column_tables(columns: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Any]:
    """Column names and types; the only table of an asset goes where Dagster's UI looks for its schema."""
    import dagster as dg

    schemas = {
        name: dg.TableSchema(columns=[dg.TableColumn(name=column, type=type_) for column, type_ in pairs])
        for name, pairs in columns.items()
    }
    if len(schemas) == 1:
        return {"dagster/column_schema": next(iter(schemas.values()))}
    return {f"columns of {name}": schema for name, schema in schemas.items()}


def rounded(value: Any) -> Any:
    """Six digits of a float, for a person; the manifest has them all. Anything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def sample_rows(path: Path, rows: int = SAMPLE_ROWS) -> dg.TableMetadataValue:
    """The first rows of a Parquet file, as a table. Reads one small batch, never the file."""
    import pyarrow.parquet as pq

    from ml_platform.stages.publish import table

    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=rows), None)
    return table(batch.to_pylist() if batch is not None else [])
