"""Hash the rows of an Arrow table, in numpy: what `content.py` adds up.

A cell becomes a uint64 word that holds its value exactly, or a word a lane where 64 bits are too few (strings, wide
decimals, nested values). The word is scrambled one to one and multiplied by its column's random number; the products
of a row are added (multilinear hashing: Carter and Wegman, 1979), and the sum is mixed with splitmix64's finaliser
(Steele, Lea and Flood, 2014). So a value that moves to another column or to another row changes the hash, and the
order of columns does not. Scrambling comes first because a product alone would lose high bits: two signs flipped in a
row would cancel out.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Sequence

Words = npt.NDArray[np.uint64]

LANES = 2
"""Independent 64-bit hashes of every row."""
_BLOCK = 1 << 15  # words mixed at a time, few enough for the processor's cache
_LONG = 256  # bytes; a longer string goes through BLAKE2 rather than through a numpy step every eight bytes


def canonical_type(kind: Any) -> str:
    """A type's name, without how it is stored.

    Raises:
        PlatformError: the type has no canonical form (a union).
    """
    is_ = pa.types
    if is_.is_dictionary(kind) or is_.is_run_end_encoded(kind):
        return canonical_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return canonical_type(kind.storage_type)
    if _is_text(kind):
        return "string"
    if _is_binary(kind):
        return "binary"
    if is_.is_date(kind):
        return "date"
    if is_.is_time(kind):
        return "time"
    if is_.is_duration(kind):
        return "duration"
    if is_.is_timestamp(kind):
        zone = "UTC" if kind.tz in ("Etc/UTC", "+00:00", "Z") else kind.tz
        return f"timestamp[{zone}]" if zone else "timestamp"
    if is_.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if is_.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return f"struct<{', '.join(sorted(f'{f.name}: {canonical_type(f.type)}' for f in fields))}>"
    if is_.is_map(kind):
        return f"map<{canonical_type(kind.key_type)}, {canonical_type(kind.item_type)}>"
    if _is_list(kind):
        return f"list<{canonical_type(kind.value_type)}>"
    if is_.is_primitive(kind) or is_.is_null(kind):
        return str(kind)
    raise PlatformError("A column of this type has no data version.", got=kind, fix="convert it before it is stored")


def hash_rows(table: pa.Table) -> list[Words]:
    """One hash a row and lane: LANES arrays of shape (rows,)."""
    total = [np.zeros(table.num_rows, np.uint64) for _ in range(LANES)]
    for name in table.column_names:
        array = _one_array(table[name])
        step = len(array) if pa.types.is_dictionary(array.type) else _BLOCK
        for start in range(0, len(array), step):
            for lane, cells in zip(total, _cells(array.slice(start, step), name), strict=True):
                lane[start : start + step] += cells
    # Without this last mixing the sum over rows would be blind to values that move between rows.
    return [_mix(lane, _seed("row", "", index)) for index, lane in enumerate(total)]


def _scramble(words: Words) -> Words:
    """A cheap one-to-one mixing of each word, in place: high bits reach the low ones. Returns `words`."""
    shifted = np.right_shift(words, np.uint64(32))
    words ^= shifted
    words *= np.uint64(0xD6E8FEB86659FD93)
    words ^= np.right_shift(words, np.uint64(29), out=shifted)
    return words


def _mix(words: Words, add: int = 0) -> Words:
    """Add a constant to each word and mix it well, one to one, in place. Returns `words`."""
    constant, m1, m2 = np.uint64(add), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
    s30, s27, s31 = np.uint64(30), np.uint64(27), np.uint64(31)
    scratch = np.empty(min(len(words), _BLOCK), np.uint64)
    for start in range(0, len(words), _BLOCK):
        x = words[start : start + _BLOCK]
        shifted = scratch[: len(x)]
        x += constant
        x ^= np.right_shift(x, s30, out=shifted)
        x *= m1
        x ^= np.right_shift(x, s27, out=shifted)
        x *= m2
        x ^= np.right_shift(x, s31, out=shifted)
    return words


@functools.lru_cache(1 << 16)
def _seed(role: str, path: str, lane: int) -> int:
    digest = hashlib.sha256(f"{role}\0{lane}\0{path}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    elif _is_text(column.type) or _is_binary(column.type):
        column = _dense(column).dictionary_encode()  # one dictionary for all chunks, made before they are joined
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _dense(array: Any) -> Any:
    """Fixed-size binaries and views as plain ones, which Arrow's kernels take."""
    return array.cast(pa.large_string() if _is_text(array.type) else pa.large_binary())


def _cells(array: Any, path: str) -> list[Words]:
    """Each value's hash, LANES fresh arrays. `path` names the column, and inside a nested one the field."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    nulls = _nulls(array)
    if pa.types.is_dictionary(array.type):
        # Hash each distinct value once, then look the rows up. (A null may also hide in the dictionary.)
        distinct = _cells(array.dictionary, path) if len(array.dictionary) else [np.zeros(1, np.uint64)] * LANES
        index = _numbers(array.indices)
        if nulls is not None:
            index = np.where(nulls, 0, index)
        lanes = [cells[index] for cells in distinct]
    else:
        words = [_scramble(each) for each in _words(array, path)]
        factors = [np.uint64(_seed("factor", path, lane) | 1) for lane in range(LANES)]
        lanes = [words[lane % len(words)] * factor for lane, factor in enumerate(factors)]
    if nulls is not None:
        for lane, cells in enumerate(lanes):
            cells[nulls] = np.uint64(_seed("null", path, lane))
    return lanes


def _nulls(array: Any) -> npt.NDArray[np.bool_] | None:
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None


def _words(array: Any, path: str) -> list[Words]:
    """Each value as one uint64 that holds it exactly, or as LANES hashes. Fresh arrays; where null, anything."""
    kind, is_ = array.type, pa.types
    if is_.is_null(kind):
        return [np.zeros(len(array), np.uint64)]
    if is_.is_boolean(kind):
        return [_numbers(array.cast(pa.uint8())).astype(np.uint64)]
    if is_.is_integer(kind) or is_.is_date32(kind):
        return [_numbers(array).astype(np.uint64)]  # negative numbers are sign-extended
    if is_.is_floating(kind):
        values = _numbers(array).astype(np.float64)
        values += 0.0  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan  # one NaN
        return [values.view(np.uint64)]
    if is_.is_date64(kind):
        return [(_numbers(array) // 86_400_000).astype(np.uint64)]
    if is_.is_timestamp(kind) or is_.is_duration(kind) or is_.is_time(kind):
        return [_microseconds(_numbers(array).astype(np.int64), kind.unit)]
    if is_.is_decimal256(kind):
        return _words(array.cast(pa.string()), path)
    if is_.is_decimal(kind):
        halves = _numbers(array.cast(pa.decimal128(kind.precision, kind.scale)))
        return [_mix(halves["high"].copy(), _seed("high", "", lane)) + halves["low"] for lane in range(LANES)]
    if _is_text(kind) or _is_binary(kind):
        return _byte_words(_dense(array))
    if is_.is_struct(kind):
        fields = [_cells(array.field(i), f"{path}\0{kind.field(i).name}") for i in range(kind.num_fields)]
        empty = np.zeros(len(array), np.uint64)
        return [sum((cells[lane] for cells in fields), empty) for lane in range(LANES)]
    if is_.is_map(kind):
        entries = pa.StructArray.from_arrays([array.keys, array.items], ["key", "item"])
        return _segment_words(array.offsets, _cells(entries, f"{path}\0{{}}"), ordered=False)
    if not (is_.is_list(kind) or is_.is_large_list(kind)):
        array = array.cast(pa.large_list(kind.value_type))
    return _segment_words(array.offsets, _cells(array.values, f"{path}\0[]"), ordered=True)


def _numbers(array: Any) -> npt.NDArray[Any]:
    """The fixed-width values as a read-only view of Arrow's buffer; where null, whatever is there."""
    kind = array.type
    if pa.types.is_decimal(kind):
        dtype = np.dtype([("low", "<u8"), ("high", "<u8")])
    elif pa.types.is_temporal(kind):
        dtype = np.dtype(f"<i{kind.bit_width // 8}")
    else:
        dtype = np.dtype(kind.to_pandas_dtype()).newbyteorder("<")
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype, count=array.offset + len(array))[array.offset :]


def _microseconds(values: npt.NDArray[np.int64], unit: str) -> Words:
    """A time as microseconds, with what is finer folded in: the same in whatever unit it is stored. May wrap."""
    if unit == "ns":
        whole, rest = np.divmod(values, 1000)
        return whole.view(np.uint64) + rest.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    if unit == "us":
        return values.view(np.uint64)
    return (values * {"ms": 1000, "s": 1_000_000}[unit]).view(np.uint64)


def _byte_words(array: Any) -> list[Words]:
    """Hash strings without a loop over them: eight bytes a step, all strings that are long enough together."""
    array = array.cast(pa.large_binary())
    offsets = np.frombuffer(array.buffers()[1], "<i8", count=array.offset + len(array) + 1)[array.offset :]
    first, last = int(offsets[0]), int(offsets[-1])
    raw = bytes(array.buffers()[2].slice(first, last - first)) if last > first else b""
    padded = raw + bytes(8)
    words_at: Any = np.ndarray((len(raw) + 1,), "<u8", padded, strides=(1,))  # the eight bytes from every position on
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    lanes = [_mix(lengths.astype(np.uint64), _seed("bytes", "", lane)) for lane in range(LANES)]
    active = np.flatnonzero((lengths > 0) & (lengths <= _LONG))
    step = 0
    while len(active):
        words = words_at[starts[active] + step].astype(np.uint64)
        left = lengths[active] - step
        ends = left < 8
        words[ends] &= (np.uint64(1) << (left[ends].astype(np.uint64) * np.uint64(8))) - np.uint64(1)
        for lane, total in enumerate(lanes):
            total[active] = _mix(total[active] + words, _seed("word", "", lane))
        active = active[left > 8]
        step += 8
    for row in np.flatnonzero(lengths > _LONG).tolist():
        text = raw[starts[row] : starts[row] + lengths[row]]
        digest = np.frombuffer(hashlib.blake2b(text, digest_size=8 * LANES).digest(), "<u8")
        for lane, total in enumerate(lanes):
            total[row] = digest[lane]
    return lanes


def _segment_words(offsets: Any, elements: Sequence[Words], *, ordered: bool) -> list[Words]:
    """Hash runs of elements, run i from offsets[i] to offsets[i+1]: as a list, or where order has no meaning a map."""
    ends = np.asarray(offsets).astype(np.int64)
    first, last = int(ends[0]), int(ends[-1])
    ends -= first
    lengths = np.diff(ends)
    result = []
    for lane, cells in enumerate(elements):
        cells = cells[first:last]
        if ordered:
            position = np.arange(last - first) - np.repeat(ends[:-1], lengths)
            cells = _mix(cells + _mix(position.astype(np.uint64), _seed("position", "", lane)))
        running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(cells, dtype=np.uint64)])
        result.append(
            running[ends[1:]] - running[ends[:-1]] + _mix(lengths.astype(np.uint64), _seed("length", "", lane))
        )
    return result


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: Any) -> bool:
    is_ = pa.types
    return bool(
        is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind) or is_.is_binary_view(kind)
    )


def _is_list(kind: Any) -> bool:
    is_ = pa.types
    plain = is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind)
    return bool(plain or is_.is_list_view(kind) or is_.is_large_list_view(kind))
