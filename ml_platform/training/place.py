"""Which rank this is, of how many, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.distributed as dist


@dataclass(frozen=True)
class Place:
    """Which rank this is, of how many, on which device, speaking through which backend.

    `local_rank` is its number among the ranks that share a disk with it, of which there are `local_world` on every
    machine.
    """

    rank: int
    world: int
    device: str
    backend: str
    local_rank: int = 0
    local_world: int = 1

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values
