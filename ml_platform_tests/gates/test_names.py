"""A column is addressed by its name, whatever that means to polars."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from ml_platform.gates.quarantine import quarantine_file

from .batches import profile_of
from .conftest import Gate, orders

PATTERNS = ["*", "^.*$", "^price$", "^(?i)o.*$", "^$", "^a[$", "$", "price^"]


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_columns_whose_names_are_patterns_are_kept_as_they_came(gate: Gate, tmp_path: Path, format: str) -> None:
    values = {name: pl.Series([str(number), "x", None] * 100) for number, name in enumerate(PATTERNS)}
    frame = orders(300).drop("note").with_columns(pl.Series(name, column) for name, column in values.items())
    frame = frame.rename({"order": "number"}).with_columns(key=pl.col("number"))
    report = gate(frame, "OPEN", format=format)
    assert report.accepted, report.reason
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.columns[0] == "key"
    for name, column in values.items():
        assert out.get_column(name).to_list() == column.to_list()


def test_rows_with_names_that_are_patterns_are_set_aside(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame({"^.*$": ["p", "q", "r"], "*": [1.5, 2.5, None], "key": [1, 2, 2], "^key$": [7, 7, 7]})
    assert gate(frame, "OPEN", quarantine=0.9).accepted
    aside = pl.read_parquet(quarantine_file(tmp_path / "out.parquet"))
    assert aside.columns == ["row", "broke", *frame.columns]
    assert aside.get_column("^.*$").to_list() == ["q", "r"]
    assert aside.get_column("*").to_list() == [2.5, None]


def test_a_declared_column_that_pandera_would_mistake_for_others_is_refused(gate: Gate) -> None:
    report = gate(pl.DataFrame({"^a$": ["not a number"], "a": [1]}), "PATTERN")
    assert report.failed == ("columns",)
    assert report.family("columns").codes == ("invalid_column_name",)
    assert "'^a$'" in report.reason


def test_the_profile_of_a_column_is_its_own() -> None:
    names = [name for name in PATTERNS if name]
    frame = pl.DataFrame({name: [float(place)] * 5 for place, name in enumerate(names)})
    frame = frame.with_columns(pl.Series(f"^{name}$", ["t" * (place + 1)] * 5) for place, name in enumerate(names))
    profile = profile_of(frame)
    for place, name in enumerate(names):
        assert profile.columns[name].numbers.mean == place
        assert profile.columns[f"^{name}$"].items.counts == (("t" * (place + 1), 5),)
