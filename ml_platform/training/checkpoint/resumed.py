"""What a job says of having gone on with another topology. Knows nothing of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BYTES = "the bytes may differ from those of a job left alone"


def describe(resumed: Mapping[str, Any]) -> str:
    """What of the topology changed where, for people.

    Args:
        resumed: one of `Checkpoints.resumed_on`: epoch, step, and the topologies `before` and `after`.
    """
    before, after = resumed["before"], resumed["after"]
    changed = [f"{name} {before.get(name)}, then {after[name]}" for name in after if before.get(name) != after[name]]
    return f"from epoch {resumed['epoch']}, step {resumed['step']} on another topology ({'; '.join(changed)})"


def all_of(history: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every such change in a model's history, or in its members' where it is an average."""
    yield from history.get("resumed_on", ())
    for member in history.get("members", {}).values():
        yield from all_of(member)
