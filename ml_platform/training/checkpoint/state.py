"""What a checkpoint holds, as tensors by name; a copy of it that training does not change; and how it is put back.

    module.NAME           the module's state
    optimizer.I.NAME      of its I-th parameter
    rank.R.NAME           of a rank: `losses` of this epoch's steps, `torch`, `cuda` and `others`, its random states

The options of the optimizer are not there: they follow from the recipe and the step.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml_platform.training.checkpoint.parts import Parts
from ml_platform.training.sharding import is_sharded, local


def tensors_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What training changes, in place."""
    found = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    return found


def numbers_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What else an optimizer keeps of a parameter, as JSON has it."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if not isinstance(value, Tensor)
    }


def written_by(tensors: Mapping[str, Tensor], module: nn.Module, rank: int, writers: int) -> dict[str, Tensor]:
    """What a rank writes: its shards, and of what all ranks have alike a share that is as large as the others'.

    Args:
        tensors: all (`tensors_of`); the same names and shapes on every rank.
        module: of which those are. Its buffers differ between ranks, and rank 0's count.
        rank: this one.
        writers: how many ranks, from 0 on, write what all have alike.
    """
    loads = [0] * writers
    buffers = {f"module.{name}" for name, _ in module.named_buffers(remove_duplicate=False)}
    mine = {name: value for name, value in tensors.items() if is_sharded(value) or (name in buffers and rank == 0)}
    alike = {name: value for name, value in tensors.items() if not is_sharded(value) and name not in buffers}
    for name, value in sorted(alike.items(), key=lambda item: (-item[1].nbytes, item[0])):
        least = loads.index(min(loads))
        loads[least] += value.nbytes
        if least == rank:
            mine[name] = value
    return mine


class Copy:
    """A copy on the CPU, into the same memory each time: whoever reads it has finished before the next `take`."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy."""
        for name, value in tensors.items():
            kept = self._kept.get(name)
            if kept is None or kept.shape != value.shape:
                self._kept[name] = value.detach().to("cpu", copy=True)
            else:
                local(kept).copy_(local(value.detach()))
        return {name: self._kept[name] for name in tensors}


def restore(parts: Parts, numbers: Mapping[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the module's and the optimizer's state in place, of a sharded one this rank's shards."""
    weights = module.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    into = {f"module.{name}": value for name, value in weights.items()}
    for full, shape in parts.shapes.items():
        kind, _, rest = full.partition(".")
        if kind != "optimizer":
            continue
        index, _, name = rest.partition(".")
        parameter, dtype = parameters[int(index)].detach(), parts.dtypes[full]
        alike = shape == parameter.shape and len(shape) > 0
        into[full] = torch.zeros_like(parameter, dtype=dtype) if alike else torch.zeros(shape, dtype=dtype)
        state.setdefault(int(index), {})[name] = into[full]
    for full, value in numbers.items():
        index, _, name = full.partition(".")
        state.setdefault(int(index), {})[name] = value
    parts.read(into)
    module.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_state() -> dict[str, Tensor]:
    """Of every generator that is not named by a key (`seeding.generator`)."""
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    others = {"numpy": [kind, np.asarray(keys).tolist(), place, has_gauss, gauss], "python": random.getstate()}
    text = torch.frombuffer(bytearray(json.dumps(others).encode()), dtype=torch.uint8)
    found = {"torch": torch.get_rng_state(), "others": text}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` has given."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    others = json.loads(bytes(state["others"].tolist()))
    kind, keys, place, has_gauss, gauss = others["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    version, words, following = others["python"]
    random.setstate((version, tuple(words), following))
