"""How two versions of a model differ: what their provenance records say of metrics, recipe, data, code, libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ml_platform.versions.fingerprint import short_hash

Record = Mapping[str, Any]
_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that differs: `kind` is metric, parameter, data, code, library or topology; None where one has none."""

    kind: str
    what: str
    one: Any
    other: Any

    @staticmethod
    def shown(value: Any) -> str:
        """A value for people."""
        if value is None:
            return "-"
        if isinstance(value, float):
            return f"{value:.6g}"
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def differences(one: Record, other: Record) -> list[Difference]:
    """What differs between two provenance records, metrics first. What is equal is left out."""
    sides = [dict(_facts(record)) for record in (one, other)]
    keys = sorted({*sides[0], *sides[1]}, key=lambda key: (_KINDS.index(key[0]), key[1]))
    pairs = ((key, sides[0].get(key), sides[1].get(key)) for key in keys)
    return [Difference(kind=kind, what=what, one=a, other=b) for (kind, what), a, b in pairs if a != b]


_KINDS = ("model", "metric", "parameter", "data", "code", "library", "topology")


def _facts(record: Record) -> Iterator[tuple[tuple[str, str], Any]]:
    yield ("model", "weights"), record["model"]["weights"]
    evaluation = record["evaluation"]
    for name, value in evaluation.get("metrics", {}).items():
        yield ("metric", name), value
        if around := evaluation.get("intervals", {}).get(name):
            yield ("metric", f"{name} interval"), f"{around[0]:.4f} to {around[1]:.4f}"
    for name, value in _flat(record["parameters"]):
        if not name.startswith("stages.trained_model.recipe"):  # it is there as the recipe
            yield ("parameter", name), value
    training = record["training"]
    yield ("data", "rows"), training.get("rows")
    for name in ("windows", "train", "holdout", "left_out", "withdrawn", "waived"):
        for path, value in _flat(training.get(name, {}), name):
            yield ("data", path), value
    for stage in ("raw_batch", "features"):
        for entry in record["artifacts"].get(stage, ()):
            yield ("data", f"{stage} {entry.get('batch', '')}".rstrip()), entry["facets"]["version"]["datasetVersion"]
    place = record["job"]["facets"]["sourceCodeLocation"]
    yield ("code", "commit"), f"{place['version']}{'+' if place.get('dirty') else ''}"
    for name, stage in record["stages"].items():
        # Parameters and libraries are told apart; here is what the functions do.
        yield (
            ("code", name),
            short_hash([{**c, "value": "", "params": {}, "libraries": {}} for c in stage["code"]])[:12],
        )
    for name, value in _flat(record["environment"]):
        yield ("library", name), value
    for name, value in _flat(record["topology"]):
        yield ("topology", name), value


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(each, f"{path}.{name}" if path else str(name))
    elif path:
        yield path, value
