"""From feature columns to the numbers a model reads. Fitted in the training job, carried by the model, used by scoring.

Numeric: (value - mean) / std in float64, then float32. Missing, NaN and infinite values become the mean; where the
training rows had some, a further column says so. Categorical: the position in the sorted vocabulary, from 1; code 0 is
a missing or unknown value. Where the training rows held whole numbers they are compared as integers, otherwise as
text; the text of a whole number is what Spark's cast makes of it, since the feature job casts so before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_platform.errors import FeatureError
from ml_platform.pipeline import Task
from ml_platform.training.model_inputs import ModelInputs

Kind = str  # "integer", "boolean" or "string"


@dataclass(frozen=True)
class Numeric:
    """A numeric feature: its mean and standard deviation over the training rows, and whether some lacked it."""

    name: str
    mean: float
    std: float
    indicator: bool


@dataclass(frozen=True)
class Categorical:
    """A categorical feature and its sorted vocabulary."""

    name: str
    kind: Kind
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Label:
    """The label: sorted classes, or the mean and standard deviation of a regression's target."""

    name: str
    kind: Kind
    classes: tuple[Any, ...] = ()
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Encoded:
    """Rows as the model reads them: float32 (rows, numeric_width) and int32 (rows, categories), both C-contiguous."""

    numeric: NDArray[np.float32]
    categorical: NDArray[np.int32]


@dataclass(frozen=True)
class Preprocessing:
    """Everything that was learned from the training rows, apart from weights."""

    task: Task
    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]
    label: Label

    @property
    def columns(self) -> tuple[str, ...]:
        """Feature columns, numeric first."""
        return (*(f.name for f in self.numeric), *(f.name for f in self.categorical))

    def inputs(self) -> ModelInputs:
        """What a model function is told."""
        indicators = tuple(f"{f.name} is missing" for f in self.numeric if f.indicator)
        return ModelInputs(
            task=self.task,
            numeric_names=tuple(f.name for f in self.numeric) + indicators,
            categorical_names=tuple(f.name for f in self.categorical),
            cardinalities=tuple(len(f.values) + 1 for f in self.categorical),
            outputs=len(self.label.classes) if self.task == "multiclass" else 1,
        )

    def encode(self, table: pa.Table) -> Encoded:
        """Encode a table that has the feature columns.

        Raises:
            FeatureError: a column is missing or holds values of the wrong type; it is named.
        """
        inputs = self.inputs()
        numeric = np.empty((table.num_rows, inputs.numeric_width), dtype=np.float32)
        categorical = np.empty((table.num_rows, len(self.categorical)), dtype=np.int32)
        place = len(self.numeric)
        for j, feature in enumerate(self.numeric):
            values = numeric_values(table, feature.name)
            finite = np.isfinite(values)
            if not finite.all():
                values = np.where(finite, values, feature.mean)
            numeric[:, j] = (values - feature.mean) / feature.std
            if feature.indicator:
                numeric[:, place] = ~finite
                place += 1
        for j, category in enumerate(self.categorical):
            categorical[:, j] = category_codes(table, category.name, category.kind, category.values)
        return Encoded(numeric, categorical)

    def encode_label(self, table: pa.Table) -> NDArray[np.float32] | NDArray[np.int64]:
        """Targets: int64 (rows,) for multiclass, else float32 (rows, 1); a regression's are scaled."""
        label = self.label
        if self.task == "regression":
            scaled = (numeric_values(table, label.name) - label.mean) / label.std
            return scaled.astype(np.float32)[:, None]
        codes = category_codes(table, label.name, label.kind, label.classes).astype(np.int64) - 1
        return codes if self.task == "multiclass" else codes.astype(np.float32)[:, None]

    def to_record(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "task": self.task,
            "numeric": [vars(f) for f in self.numeric],
            "categorical": [vars(f) for f in self.categorical],
            "label": vars(self.label),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Preprocessing:
        """Read what `to_record` wrote. Raises KeyError or TypeError for another shape."""
        label = record["label"]
        return cls(
            task=record["task"],
            numeric=tuple(Numeric(**f) for f in record["numeric"]),
            categorical=tuple(Categorical(**{**f, "values": tuple(f["values"])}) for f in record["categorical"]),
            label=Label(**{**label, "classes": tuple(label["classes"])}),
        )


def column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The column of that name. Raises FeatureError where there is none, or two."""
    places = table.schema.get_all_field_indices(name)
    if len(places) != 1:
        what = "A feature column is missing." if not places else "Two columns have one name."
        raise FeatureError(what, where=f"column {name!r}", got=f"columns {', '.join(table.column_names) or 'none'}")
    return table.column(places[0])


def numeric_values(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 (rows,), missing values as NaN. Numbers and booleans; no text, even if it reads as one."""
    return _cast(_plain(column(table, name)), pa.float64(), name).to_numpy()  # type: ignore[no-any-return]


def kind_of(type_: pa.DataType, name: str) -> Kind:
    """How the values of a categorical column are compared. Raises FeatureError for floats, times and nested types."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "string"
    raise FeatureError(
        "A category is a string, an integer or a boolean.",
        where=f"column {name!r}",
        got=type_,
        fix="declare the column numeric, or cast it in the feature function",
    )


def category_values(table: pa.Table, name: str, kind: Kind) -> pa.ChunkedArray:
    """A column as int64, bool or string. Raises FeatureError where a value is of another kind."""
    return _cast(_plain(column(table, name)), _ARROW[kind], name)


def category_codes(table: pa.Table, name: str, kind: Kind, values: Sequence[Any]) -> NDArray[np.int32]:
    """Codes (rows,): the position in `values`, from 1; 0 for a missing or unknown value."""
    vocabulary = pa.array(values, type=_ARROW[kind])
    chunks = []
    for chunk in column(table, name).chunks:
        if pa.types.is_dictionary(chunk.type):  # look up each distinct value once, not each row
            of_value = _cast(_plain(pa.chunked_array([chunk.dictionary])), _ARROW[kind], name)
            codes = _codes(of_value.combine_chunks(), vocabulary)
            places = chunk.indices.cast(pa.int64()).fill_null(len(codes)).to_numpy(zero_copy_only=False)
            chunks.append(np.append(codes, np.int32(0))[places])
        else:
            cast = _cast(_plain(pa.chunked_array([chunk])), _ARROW[kind], name)
            chunks.append(_codes(cast.combine_chunks(), vocabulary))
    return np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int32)


_ARROW: dict[Kind, pa.DataType] = {"integer": pa.int64(), "boolean": pa.bool_(), "string": pa.string()}


def _codes(values: pa.Array, vocabulary: pa.Array) -> NDArray[np.int32]:
    # skip_nulls: a missing value is never found, whatever the vocabulary holds.
    found = pc.index_in(values, value_set=vocabulary, skip_nulls=True)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False) + np.int32(1)  # type: ignore[no-any-return]


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _cast(values: pa.ChunkedArray, type_: pa.DataType, name: str) -> pa.ChunkedArray:
    if values.type == type_:
        return values
    try:
        if type_ == pa.int64() and pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)  # pandas writes a missing integer as NaN
        if type_ == pa.float64() and values.null_count < len(values) and not _is_number(values.type):
            raise pa.ArrowInvalid(f"{values.type} is not a number")
        if type_ == pa.string() and pa.types.is_floating(values.type):
            # pandas makes floats of whole numbers with missing ones among them: 5.0 was 5, and is "5".
            values = pc.if_else(pc.is_nan(values), None, values).cast(pa.int64())
        if type_ == pa.string() and pa.types.is_nested(values.type):
            raise pa.ArrowInvalid(f"{values.type} is not a category")
        safe = not (type_ == pa.float64() and pa.types.is_integer(values.type))  # beyond 2**53 the nearest will do
        return values.cast(type_, safe=safe)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FeatureError(
            f"A value of column {name!r} cannot be read as {type_}.",
            where=f"column {name!r} of type {values.type}",
            got=str(error).splitlines()[0],
            fix="give numbers or booleans"
            if type_ == pa.float64()
            else "give text, whole numbers or booleans, as the feature function does",
        ) from error


def _is_number(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_boolean(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_null(type_)
    )
