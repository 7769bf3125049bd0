"""Every kind of bad file gives a report that says what is wrong, in the right family, and leaves nothing behind."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import DeclarationError
from ml_platform.gates.report import FAMILIES, GateReport

from .conftest import Gate, orders


def failed_alone(report: GateReport, family: str, code: str, folder: Path) -> str:
    """Assert that this family failed alone, for this reason, and that no file was written; return the reason."""
    assert not report.accepted
    assert report.failed == (family,), report.reason
    assert code in report.family(family).codes
    assert tuple(result.name for result in report.families) == tuple(FAMILIES)
    assert family in report.reason
    assert not (folder / "out.parquet").exists()
    assert not list(folder.glob("*.partial"))
    assert GateReport.from_json(report.to_json()) == report
    return report.reason


def parquet_bytes(frame: pl.DataFrame, folder: Path) -> bytes:
    frame.write_parquet(folder / "whole.parquet", row_group_size=64)
    return (folder / "whole.parquet").read_bytes()


def test_zero_bytes(gate: Gate, tmp_path: Path) -> None:
    failed_alone(gate(b""), "readable", "empty_file", tmp_path)
    failed_alone(gate(b"", format="csv"), "readable", "empty_file", tmp_path)


def test_missing_file(gate: Gate, tmp_path: Path) -> None:
    failed_alone(gate(tmp_path / "nowhere.parquet"), "readable", "missing_file", tmp_path)


def test_truncated_parquet(gate: Gate, tmp_path: Path) -> None:
    data = parquet_bytes(orders(), tmp_path)
    failed_alone(gate(data[: len(data) // 2]), "readable", "not_parquet", tmp_path)


def test_damaged_pages_behind_a_sound_footer(gate: Gate, tmp_path: Path) -> None:
    data = bytearray(parquet_bytes(orders(5000), tmp_path))
    for place in range(8, len(data) * 2 // 3):
        data[place] ^= 0xA5
    report = gate(bytes(data))
    assert failed_alone(report, "readable", "damaged", tmp_path)
    assert report.family("values").status == "not reached"


def test_csv_where_parquet_is_declared_and_the_other_way_round(gate: Gate, tmp_path: Path) -> None:
    failed_alone(gate(b"order,day\n1,2024-01-01\n"), "readable", "not_parquet", tmp_path)
    failed_alone(gate(parquet_bytes(orders(), tmp_path), format="csv"), "readable", "not_utf8", tmp_path)


def test_missing_column(gate: Gate, tmp_path: Path) -> None:
    reason = failed_alone(gate(orders().drop("price", "shop")), "columns", "column_not_in_dataframe", tmp_path)
    assert "price" in reason
    assert "shop" in reason


def test_extra_columns_of_a_strict_schema_are_all_named(gate: Gate, tmp_path: Path) -> None:
    frame = orders().with_columns(one=pl.lit(1), two=pl.lit(2))
    reason = failed_alone(gate(frame), "columns", "column_not_in_schema", tmp_path)
    assert "one, two" in reason


def test_wrong_type(gate: Gate, tmp_path: Path) -> None:
    reason = failed_alone(gate(orders().cast({"items": pl.String})), "types", "wrong_dtype", tmp_path)
    assert "items" in reason
    assert "String" in reason


def test_nulls_and_not_a_number(gate: Gate) -> None:
    n = pl.int_range(pl.len())
    frame = orders().with_columns(price=pl.when(n == 3).then(float("nan")).when(n == 4).then(None).otherwise("price"))
    report = gate(frame)
    # Not-a-number is also outside of any range, to pandera as to the gate.
    assert report.failed == ("nulls", "values")
    assert report.family("values").failures == 1
    assert report.family("nulls").codes == ("series_contains_nulls",)
    assert report.family("nulls").failures == 2
    assert [case["row"] for case in report.family("nulls").cases] == [3, 4]


def test_values_out_of_range_not_allowed_and_refused_by_the_team(gate: Gate, tmp_path: Path) -> None:
    n = pl.int_range(pl.len())
    frame = orders().with_columns(
        price=pl.when(n < 12).then(5000.0).otherwise("price"),
        shop=pl.when(n == 5).then(pl.lit("west")).otherwise("shop"),
        items=pl.when(n == 9).then(13).otherwise("items").cast(pl.Int32),
    )
    report = gate(frame)
    reason = failed_alone(report, "values", "dataframe_check", tmp_path)
    values = report.family("values")
    assert values.failures == 12
    assert values.checked == 200
    assert values.fraction == pytest.approx(0.06)
    assert {(rule.check, rule.column, rule.failures) for rule in values.broken} == {
        ("in_range(0, 1000)", "price", 12),
        ("isin(['north', 'south', 'east'])", "shop", 1),
        ("not_thirteen", "items", 1),
    }
    assert reason.startswith(
        "orders 2024-01-01: values: 12 of 200 rows break in_range(0, 1000) on price, first: row 0 has 5000.0"
    )
    case = next(case for case in values.cases if case["column"] == "shop")
    assert (case["row"], case["value"], case["record"]["order"]) == (5, "west", 5)


def test_at_most_twenty_cases_however_many_rows_fail(gate: Gate, tmp_path: Path) -> None:
    report = gate(orders(5000).with_columns(price=pl.lit(-1.0), paid=pl.lit(None, dtype=pl.Float64)))
    failed_alone(report, "values", "dataframe_check", tmp_path)
    assert report.family("values").failures == 5000
    assert len(report.family("values").cases) == 20


def test_a_rule_across_columns(gate: Gate, tmp_path: Path) -> None:
    frame = orders().with_columns(paid=pl.when(pl.int_range(pl.len()) == 8).then(900.0).otherwise("paid"))
    report = gate(frame)
    assert "paid_at_most_the_price" in failed_alone(report, "rules", "dataframe_check", tmp_path)
    assert report.family("rules").cases[0]["record"]["paid"] == 900.0


def test_no_rows(gate: Gate, tmp_path: Path) -> None:
    failed_alone(gate(orders().clear()), "rows", "no_rows", tmp_path)
    failed_alone(gate(orders().clear(), format="csv"), "rows", "no_rows", tmp_path)


def test_ragged_csv_rows_are_shown(gate: Gate, tmp_path: Path) -> None:
    text = (
        "order,day,shop,price,paid,items,note\n1,2024-01-01,north,1.5,,2,\n2,2024-01-01\n3,2024-01-01,east,1,1,2,x,y\n"
    )
    report = gate(text.encode(), format="csv")
    assert "2 rows" in failed_alone(report, "readable", "ragged_rows", tmp_path)
    assert [(case["row"], case["value"]) for case in report.family("readable").cases] == [
        (1, "2,2024-01-01"),
        (2, "3,2024-01-01,east,1,1,2,x,y"),
    ]


def test_csv_in_another_encoding(gate: Gate, tmp_path: Path) -> None:
    text = "order,day,shop,price,paid,items,note\n1,2024-01-01,north,1.5,,2,caf\u00e9\n"
    failed_alone(gate(text.encode("latin-1"), format="csv"), "readable", "not_utf8", tmp_path)
    failed_alone(gate(text.encode("utf-16"), format="csv"), "readable", "not_utf8", tmp_path)


def test_csv_in_another_encoding_far_behind_the_header(gate: Gate, tmp_path: Path) -> None:
    good = "order,day,shop,price,paid,items,note\n" + "".join(f"{n},2024-01-01,north,1.5,,2,x\n" for n in range(90_000))
    data = good.encode() + "90000,2024-01-01,north,1.5,,2,caf\u00e9\n".encode("latin-1")
    failed_alone(gate(data, format="csv"), "readable", "not_utf8", tmp_path)


def test_csv_value_of_the_wrong_type_is_named_with_its_row(gate: Gate, tmp_path: Path) -> None:
    text = "order,day,shop,price,paid,items,note\n1,2024-01-01,north,1.5,,2,\n2,yesterday,north,1.5,,many,\n"
    report = gate(text.encode(), format="csv")
    failed_alone(report, "types", "value_not_parsed", tmp_path)
    assert {(case["row"], case["column"], case["value"]) for case in report.family("types").cases} == {
        (1, "day", "yesterday"),
        (1, "items", "many"),
    }


WIDE_TYPES = {
    "Int128": pl.DataFrame({"a": [1], "wide": pl.Series([2**100], dtype=pl.Int128)}),
    "List(Int128)": pl.DataFrame({"a": [1], "wide": pl.Series([[2**100]], dtype=pl.List(pl.Int128))}),
    "Decimal(precision=60, scale=2)": pa.table({"a": [1], "wide": pa.array([Decimal(1)], pa.decimal256(60, 2))}),
    "timestamp[us, tz=Nowhere/Land]": pa.table({"a": [1], "wide": pa.array([1], pa.timestamp("us", "Nowhere/Land"))}),
}


@pytest.mark.parametrize("type_", WIDE_TYPES)
def test_a_type_that_cannot_be_read_is_named_with_its_column(gate: Gate, tmp_path: Path, type_: str) -> None:
    file, table = tmp_path / "wide.parquet", WIDE_TYPES[type_]
    table.write_parquet(file) if isinstance(table, pl.DataFrame) else pq.write_table(table, file)
    reason = failed_alone(gate(file, "CRASHING"), "readable", "unreadable_type", tmp_path)
    assert f"column wide is of type {type_}, which cannot be read" in reason
    assert "column a" not in reason


HEADER = "order,day,shop,price,paid,items,note\n"


def lines(count: int, note: str = "fine") -> list[str]:
    return [f"{number},2024-01-01,north,1.5,,2,{note}\n" for number in range(count)]


@pytest.mark.parametrize("quarantine", [0.0, 0.5])
@pytest.mark.parametrize("note", ["fine", '"quoted, ""twice"""', '"two\nlines"', '5" pipe', '"spaced" '])
@pytest.mark.parametrize("rows", [60, 40_000])
def test_a_quote_that_is_never_closed_loses_no_rows_in_silence(
    gate: Gate, tmp_path: Path, rows: int, note: str, quarantine: float
) -> None:
    text = lines(rows, note)
    assert gate((HEADER + "".join(text)).encode(), format="csv", quarantine=quarantine).rows == rows
    (tmp_path / "out.parquet").unlink()
    text[rows * 2 // 3] = f'{rows * 2 // 3},2024-01-01,north,1.5,,2,"fi""ne\n'
    report = gate((HEADER + "".join(text)).encode(), format="csv", quarantine=quarantine)
    line = 2 + rows * 2 // 3 * (2 if "\n" in note else 1)
    assert f"line {line:,} is not closed" in failed_alone(report, "readable", "unclosed_quote", tmp_path)
    assert report.family("readable").cases[0]["value"] == text[rows * 2 // 3].rstrip()


def test_a_quote_that_only_the_next_one_closes_loses_no_rows_in_silence(gate: Gate, tmp_path: Path) -> None:
    text = lines(3000)
    text[1000] = text[1000].replace("fine", '"fine')
    text[1200] = text[1200].replace("fine", '"fine')
    report = gate((HEADER + "".join(text)).encode(), format="csv", quarantine=0.5)
    reason = failed_alone(report, "readable", "unclosed_quote", tmp_path)
    assert "line 1,002 is not closed before another value's quote in line 1,202" in reason


def test_a_quoted_value_of_thousands_of_lines_is_read(gate: Gate) -> None:
    text = lines(10)
    text[5] = text[5].replace("fine", '"' + 'a line, ""and"" more\n' * 5000 + '"')
    assert gate((HEADER + "".join(text)).encode(), format="csv").accepted


def test_two_columns_of_one_name(gate: Gate, tmp_path: Path) -> None:
    failed_alone(gate(b"a,a\n1,2\n", format="csv"), "columns", "duplicate_dataframe_column_labels", tmp_path)


def test_a_coercion_that_would_lose_something_fails(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame({"key": [1.0, 2.5], "amount": [1.0, 2.0], "when": ["2024-01-01"] * 2, "region": ["a", "b"]})
    frame = frame.with_columns(pl.col("when").str.to_datetime(time_zone="UTC"))
    report = gate(frame, "Wide")
    failed_alone(report, "types", "lossy_coercion", tmp_path)
    assert report.family("types").cases[0]["value"] == 2.5


def test_a_coercion_that_does_not_fit_names_the_rows(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame({"key": ["1", "two"], "amount": [1.0, 2.0], "when": ["2024-01-01"] * 2, "region": ["a", "b"]})
    frame = frame.with_columns(pl.col("when").str.to_datetime(time_zone="UTC"))
    report = gate(frame, "Wide")
    failed_alone(report, "types", "dtype_coercion_error", tmp_path)
    assert [(case["row"], case["value"]) for case in report.family("types").cases] == [(1, "two")]


def test_times_finer_than_microseconds_are_not_cut_off(gate: Gate, tmp_path: Path) -> None:
    frame = pl.DataFrame({"kind": ["a", "b"], "at": [1_000, 2_001], "n": [1, 2]})
    report = gate(frame.cast({"at": pl.Datetime("ns", "UTC")}), "CATEGORIES")
    failed_alone(report, "types", "finer_than_microseconds", tmp_path)


def test_a_check_that_crashes_does_not_pass(gate: Gate, tmp_path: Path) -> None:
    report = gate(pl.DataFrame({"x": [1, 2, 3]}), "CRASHING")
    assert report.failed == ("values", "rules")
    assert report.family("values").codes == ("check_error",)
    assert "ZeroDivisionError" in report.family("values").message
    assert "nowhere" in report.family("rules").message
    assert not (tmp_path / "out.parquet").exists()


def test_a_check_that_crashes_on_one_row_of_many_chunks(gate: Gate, tmp_path: Path) -> None:
    report = gate(pl.DataFrame({"x": range(30_000)}), "CRASHING_ROWS", memory_mib=1, row_group_size=1000)
    failed_alone(report, "values", "check_error", tmp_path)


def test_what_no_gate_can_use_is_a_declaration_error(gate: Gate) -> None:
    for name in ("NOT_A_SCHEMA", "DROPS"):
        with pytest.raises(DeclarationError, match=name):
            gate(pl.DataFrame({"x": [1]}), name)


def test_failing_rows_are_strict_json(gate: Gate) -> None:
    frame = pl.DataFrame(
        {"key": [1, 1], "amount": [float("nan"), float("inf")], "when": [None, None], "region": ["é" * 999, "b"]},
        schema={"key": pl.Int64, "amount": pl.Float32, "when": pl.Datetime("us", "UTC"), "region": pl.String},
    )
    report = gate(frame, "Wide")
    assert set(report.failed) == {"nulls", "unique"}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(report.to_json(), parse_constant=refuse)
    assert GateReport.from_json(report.to_json()) == report
