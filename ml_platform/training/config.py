"""What a training job is told: one JSON file. No torch here, because stages import it to write that file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ml_platform.errors import DeclarationError, TrainingError
from ml_platform.pipeline import Recipe, Task

SCHEMA_VERSION = 1
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Warm:
    """A model to go on from.

    Args:
        parent: its data version.
        folder: its model folder.
        files: Parquet files to learn from instead of the job's: new ones, and some that it knows.
    """

    parent: str
    folder: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training job. The same files, recipe and topology give the same weights, byte for byte.

    The topology is what a sum's order depends on: processes, threads a process, kind of device, and whether the rows
    were kept in memory. `history.json` records the one that was used.

    Args:
        pipeline: whose model it is; for messages and for `model.json`.
        task: kind of prediction.
        label: the column to predict; rows where it is missing are not learned from.
        numeric, categorical: feature columns, in the model's order.
        recipe: what to train; a mapping of its fields is taken too.
        files: Parquet files, in batch order. Row order matters to the bytes: write them in a fixed order.
        warm: go on from a model's weights, where they serve; else begin anew with `files`.
        output: the model folder to write. The launcher fills it in where it is empty.
        device: "auto" takes a GPU where there is one.
        progress_seconds: at most how often progress is reported within an epoch.

    Raises:
        TrainingError: a field is of the wrong type or value.
    """

    pipeline: str
    task: Task
    label: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    recipe: Recipe
    files: tuple[str, ...]
    output: str = ""
    device: Device = "auto"
    progress_seconds: float = 1.0
    warm: Warm | None = None

    def __post_init__(self) -> None:
        for name in ("numeric", "categorical", "files"):
            value: Any = getattr(self, name)
            if isinstance(value, str):
                raise _bad(f"`{name}` is a list of strings.", value)
            object.__setattr__(self, name, tuple(str(item) for item in value))
        object.__setattr__(self, "output", str(self.output or ""))
        object.__setattr__(self, "recipe", _recipe(self.recipe))
        warm: Any = self.warm
        if isinstance(warm, Mapping):  # as JSON has it
            object.__setattr__(self, "warm", Warm(**{**warm, "files": tuple(warm["files"])}))
        for name, allowed in (("task", get_args(Task)), ("device", get_args(Device))):
            if getattr(self, name) not in allowed:
                raise _bad(f"Unknown {name}.", getattr(self, name), f"one of {', '.join(allowed)}")
        if not isinstance(self.progress_seconds, int | float) or not self.progress_seconds >= 0:
            raise _bad("`progress_seconds` must not be negative.", repr(self.progress_seconds))
        for name in ("pipeline", "label"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise _bad(f"`{name}` must be a name.", repr(getattr(self, name)))
        columns = (*self.numeric, *self.categorical, self.label)
        if twice := sorted({c for c in columns if columns.count(c) > 1}):
            raise _bad("A column has two parts to play.", ", ".join(twice), "each is one feature, or the label")
        if len(columns) < 2:
            raise _bad("There is no feature to learn from.", columns)
        if not self.files:
            raise _bad("There are no files to learn from.", "files=[]", "give at least one Parquet file")

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read: numeric features, categorical ones, the label."""
        return (*self.numeric, *self.categorical, self.label)

    def identity(self) -> dict[str, Any]:
        """What two launches under one name must agree on: everything but where things are and how much may be used.

        As JSON has it, whichever side was read from JSON: a tuple is a list there.
        """
        loose = {"schema", "files", "output", "device", "progress_seconds"}
        record = json.loads(self.to_json())
        kept = {key: value for key, value in record.items() if key not in loose}
        kept |= {"recipe": json.loads(json.dumps(self.recipe.identity())), "files": len(self.files)}
        if self.warm is not None:
            kept["warm"] = {"parent": self.warm.parent, "files": len(self.warm.files)}
        return kept

    def to_json(self) -> str:
        """Canonical JSON, with the schema version."""
        try:
            return json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}, sort_keys=True, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise _bad(
                "A hyperparameter cannot be written as JSON.", error, "use numbers, strings and lists"
            ) from error

    @classmethod
    def from_json(cls, text: str | bytes) -> TrainingJob:
        """Read what `to_json` wrote.

        Raises:
            TrainingError: not JSON, an unknown or missing field, a wrong value, or another schema version.
            DeclarationError: the recipe names a model that does not exist.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise _bad("The job's specification is not JSON.", error) from error
        if not isinstance(record, dict):
            raise _bad("The job's specification is not a JSON object.", type(record).__name__)
        if (version := record.pop("schema", None)) != SCHEMA_VERSION:
            raise _bad("The specification has another schema version.", version, f"this one reads {SCHEMA_VERSION}")
        if unknown := sorted(set(record) - {f.name for f in fields(cls)}):
            raise _bad("The specification has unknown fields.", ", ".join(unknown))
        try:
            return cls(**record)
        except TypeError as error:
            raise _bad("The specification lacks a field, or one is of the wrong type.", error) from error


def _recipe(value: Recipe | Mapping[str, Any]) -> Recipe:
    if isinstance(value, Recipe):
        return value
    try:
        return Recipe(**value)
    except DeclarationError:
        raise
    except TypeError as error:
        raise _bad("Not a recipe.", error, "give the fields of ml_platform.pipeline.Recipe") from error


def _bad(what: str, got: object, fix: str | None = None) -> TrainingError:
    return TrainingError(what, where="TrainingJob", got=got, fix=fix)
