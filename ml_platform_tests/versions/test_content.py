"""A data version follows the rows, and nothing of how they are stored."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import PlatformError
from ml_platform.versions.content import content_versions, table_content, table_version


def _table(rows: int = 1000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    words = np.array(["", "a", "ab", "JFK", "exactly8", "exactly8+", "naïve", "x" * 300, "x" * 299 + "y"])
    return pa.table(
        {
            "i": pa.array(rng.integers(-5, 5, rows), pa.int64(), mask=rng.random(rows) < 0.1),
            "small": pa.array(rng.integers(-5, 5, rows), pa.int8()),
            "f": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1),
            "s": pa.array(rng.choice(words, rows), mask=rng.random(rows) < 0.1),
            "t": pa.array(rng.integers(0, 2**50, rows), pa.timestamp("us", "UTC")),
            "d": pa.array(rng.integers(0, 20000, rows).astype(np.int32), pa.date32()),
            "b": pa.array(rng.random(rows) < 0.5),
            "money": pa.array(
                [Decimal(int(v)) / 100 for v in rng.integers(-(10**9), 10**9, rows)], pa.decimal128(20, 2)
            ),
            "list": pa.array([list(range(n)) if n else None for n in rng.integers(0, 4, rows)], pa.list_(pa.int64())),
            "struct": pa.array([{"x": int(v), "y": str(v)} for v in rng.integers(0, 9, rows)]),
        }
    )


def _shuffled(table: pa.Table, seed: int = 1) -> pa.Table:
    return table.take(np.random.default_rng(seed).permutation(table.num_rows))


@pytest.mark.parametrize("files", [1, 3, 8])
def test_files_row_groups_order_and_encoding_do_not_count(tmp_path: Path, files: int) -> None:
    table = _table()
    expected = table_content(table)
    shuffled = _shuffled(table).select(table.column_names[::-1])
    paths = []
    for index, compression in zip(range(files), itertools.cycle(["zstd", "snappy", "none"]), strict=False):
        size = -(-table.num_rows // files)
        paths.append(tmp_path / f"{index}.parquet")
        pq.write_table(
            shuffled.slice(index * size, size),
            paths[-1],
            compression=compression,
            row_group_size=37,
            use_dictionary=index % 2 == 0,
            data_page_version="2.0" if index % 3 == 0 else "1.0",
        )
    assert table_content(paths) == expected
    assert expected.rows == table.num_rows


def test_a_large_file_is_streamed_to_the_same_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_platform.versions import content

    table = _table(20_000)
    pq.write_table(_shuffled(table), tmp_path / "big.parquet", row_group_size=5000)
    expected = table_version(table)
    monkeypatch.setattr(content, "WHOLE_FILE_BYTES", 1)
    monkeypatch.setattr(content, "CHUNK_ROWS", 1024)
    assert table_version(tmp_path / "big.parquet") == expected
    assert table_version(table) == expected


def test_many_batches_hash_as_each_alone(tmp_path: Path) -> None:
    files: dict[str, list[Path]] = {"nothing": []}
    for index in range(40):
        rows = [0, 1, 7, 300][index % 4]
        table = _table(rows, seed=index)
        files[str(index)] = []
        for part in range(1 + index % 3):
            path = tmp_path / f"{index}-{part}.parquet"
            pq.write_table(table if part == 0 else table.slice(0, 0), path)
            files[str(index)].append(path)
    together = content_versions(files)
    assert together == {batch: table_content(paths) for batch, paths in files.items()}
    assert together["nothing"].rows == 0
    assert together["3"].rows == 300


def test_how_a_type_is_stored_does_not_count() -> None:
    texts = ["a", None, "", "bb", "a" * 12]
    plain = table_version(pa.table({"s": pa.array(texts)}))
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert table_version(pa.table({"s": pa.array(texts).cast(kind)})) == plain, kind
    hidden = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, 4]), pa.array(texts))
    assert table_version(pa.table({"s": hidden})) == plain
    two = pa.chunked_array([pa.array(texts[:2]).dictionary_encode(), pa.array(texts[2:]).dictionary_encode()])
    assert table_version(pa.table({"s": two})) == plain
    assert table_version(pa.table({"s": pa.array(texts).cast(pa.binary())})) != plain

    times = pa.array([0, -1, 1_700_000_000], pa.timestamp("s"))
    units = {table_version(pa.table({"t": times.cast(pa.timestamp(unit))})) for unit in ("s", "ms", "us", "ns")}
    assert len(units) == 1
    assert units != {table_version(pa.table({"t": times.cast(pa.timestamp("s", "UTC"))}))}

    lists = pa.array([[1, 2], None, [], [3, None]], pa.list_(pa.int32()))
    assert table_version(pa.table({"l": lists})) == table_version(
        pa.table({"l": lists.cast(pa.large_list(pa.int32()))})
    )


def test_slices_hash_like_copies() -> None:
    table = _table(500)
    part = table.slice(123, 200)
    assert table_version(part) == table_version(pa.Table.from_pylist(part.to_pylist(), schema=part.schema))


def test_csv_and_parquet_of_equal_types_agree(tmp_path: Path) -> None:
    table = (
        _table(200)
        .select(["small", "f", "d", "b"])
        .cast(pa.schema([("small", pa.int64()), ("f", pa.float64()), ("d", pa.date32()), ("b", pa.bool_())]))
    )
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    assert table_version(pyarrow.csv.read_csv(tmp_path / "t.csv")) == table_version(table)


def test_one_nan_and_one_zero() -> None:
    odd_nan = np.array([0x7FF8000000000001, 0xFFF8000000000000], np.uint64).view(np.float64)
    assert table_version(pa.table({"x": pa.array([float("nan"), float("nan")])})) == table_version(
        pa.table({"x": pa.array(odd_nan)})
    )
    assert table_version(pa.table({"x": pa.array([0.0])})) == table_version(pa.table({"x": pa.array([-0.0])}))


def test_what_is_missing_is_not_what_is_nothing() -> None:
    def numbers(value: float | None) -> str:
        return table_version(pa.table({"x": pa.array([value], pa.float64())}))

    def texts(value: str | None) -> str:
        return table_version(pa.table({"x": pa.array([value], pa.string())}))

    def lists(value: list[int | None] | None) -> str:
        return table_version(pa.table({"x": pa.array([value], pa.list_(pa.int64()))}))

    assert len({numbers(None), numbers(0.0), numbers(float("nan")), numbers(float("inf"))}) == 4
    assert len({texts(None), texts(""), texts("\0"), texts("\0\0"), texts("None"), texts(" ")}) == 6
    assert len({lists(None), lists([]), lists([None]), lists([0]), lists([0, 0])}) == 5


def test_names_types_and_repetitions_count() -> None:
    column = pa.array([1, 2, 3], pa.int64())
    versions = {
        table_version(pa.table({"x": column})),
        table_version(pa.table({"y": column})),
        table_version(pa.table({"x": column.cast(pa.int32())})),
        table_version(pa.table({"x": column.cast(pa.float64())})),
        table_version(pa.table({"x": pa.array([1, 2, 3, 3])})),
        table_version(pa.table({"x": pa.array([1, 2])})),
        table_version(pa.table({"x": pa.array([], pa.int64())})),
        table_version(pa.table({"y": pa.array([], pa.int64())})),
        table_version(pa.table({"x": column, "y": column})),
    }
    assert len(versions) == 9


def test_values_that_change_places_count() -> None:
    base = {"x": [1, 2, 3, 4], "y": [5, 6, 7, 8], "z": [1, 2, 3, 4]}
    moved = [
        base,
        {**base, "x": base["y"], "y": base["x"]},  # two columns swap
        {**base, "x": [2, 1, 3, 4]},  # two rows swap one value
        {**base, "y": [6, 5, 7, 8]},
        {**base, "x": [5, 2, 3, 4], "y": [1, 6, 7, 8]},  # one row swaps two columns
        {**base, "x": [0, 3, 3, 4]},  # the sum stays
    ]
    assert len({table_version(pa.table(table)) for table in moved}) == len(moved)
    signs = [{"x": [a * 1.5], "y": [b * 2.5], "z": [c * 1.5]} for a, b, c in itertools.product([1, -1], repeat=3)]
    assert len({table_version(pa.table(table)) for table in signs}) == len(signs)
    lists = [[[1, 2], [3]], [[1], [2, 3]], [[2, 1], [3]], [[1, 2, 3], []]]
    assert len({table_version(pa.table({"x": pa.array(value)})) for value in lists}) == len(lists)


def test_a_map_has_no_order_and_a_list_has() -> None:
    kind = pa.map_(pa.string(), pa.int64())
    one, other = pa.array([[("a", 1), ("b", 2)]], kind), pa.array([[("b", 2), ("a", 1)]], kind)
    swapped = pa.array([[("a", 2), ("b", 1)]], kind)
    assert table_version(pa.table({"m": one})) == table_version(pa.table({"m": other}))
    assert table_version(pa.table({"m": one})) != table_version(pa.table({"m": swapped}))


def test_any_single_edit_counts() -> None:
    """Change one cell at random, a thousand times: never the version of the original, nor of another edit."""
    table = _table(60).select(["i", "f", "s", "b", "t"])
    rows = table.to_pylist()
    rng = np.random.default_rng(7)
    seen = {table_version(table): ""}
    for _ in range(1000):
        row, column = int(rng.integers(len(rows))), str(rng.choice(table.column_names))
        value = {
            "i": int(rng.integers(10**6, 10**9)),
            "f": float(rng.normal()),
            "s": f"edit {rng.integers(10**9)}",
            "b": None,
            "t": dt.datetime.fromtimestamp(int(rng.integers(2**31)), dt.UTC),
        }[column]
        edited = [dict(each) for each in rows]
        edited[row][column] = value
        version = table_version(pa.Table.from_pylist(edited, schema=table.schema))
        what = f"{row} {column} {value}"
        assert seen.setdefault(version, what) == what
    assert len(seen) > 800


def test_small_values_do_not_collide() -> None:
    """Every pair of tables with two rows of two small numbers differs, unless they hold the same rows."""
    seen: dict[str, tuple[tuple[int, int], ...]] = {}
    for a, b, c, d in itertools.product(range(6), repeat=4):
        rows = tuple(sorted(((a, b), (c, d))))
        version = table_version(pa.table({"x": [a, c], "y": [b, d]}))
        assert seen.setdefault(version, rows) == rows
    assert len(seen) == 36 * 37 // 2


def test_the_hash_is_the_same_everywhere() -> None:
    """A change of this value makes every stored artifact stale: raise CONTENT_VERSION when it is meant."""
    table = pa.table(
        {
            "i": pa.array([1, None, -3], pa.int32()),
            "f": [0.5, float("nan"), None],
            "s": ["a longer text than eight", "", None],
            "t": pa.array([0, 1, None], pa.timestamp("us", "UTC")),
            "b": [True, False, None],
            "l": [[1, 2], [], None],
        }
    )
    assert table_version(table) == "6dc9e1ca9ad0657dd28dab54d92991e9"


def test_what_cannot_be_hashed_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(PlatformError, match=r"no\.parquet"):
        table_version(tmp_path / "no.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": ["1"]}), tmp_path / "b.parquet")
    with pytest.raises(PlatformError, match="differ in their columns"):
        table_version([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(PlatformError, match="one name"):
        table_version(twice)
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(PlatformError, match="no data version"):
        table_version(pa.table({"u": union}))
