"""Models that do not fit one device: weights, gradients and the optimizer's state are divided among the ranks (FSDP2).

A rank keeps its share of every parameter. Where a block of the model is computed, forward and backward, its parameters
are gathered, and let go again. Blocks are the members of the model's ModuleLists and Sequentials; what is in none of
them, such as an embedding, is gathered with the model as a whole. A block has to be used by calling it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml_platform.training.place import Place

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def shard(module: nn.Module, place: Place) -> nn.Module:
    """Divide a module among the ranks, in place, and put this rank's share on its device.

    Args:
        module: the same on every rank, on the CPU.
        place: this rank's, of several.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(place.device).type, (place.world,))
    for block in blocks(module):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    module.to(place.device)
    kept = [buffer for name, buffer in module.named_buffers() if name in module.state_dict()]
    if kept:  # as DistributedDataParallel does: those of rank 0 count
        module.register_forward_pre_hook(lambda *_: [dist.broadcast(buffer, 0) for buffer in kept] and None)
    return module


def blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of a module whose parameters are gathered together.

    One that shares a parameter with what is outside it is none.
    """
    found = list(_members(module))
    uses = Counter(id(parameter) for part in module.modules() for parameter in part.parameters(recurse=False))

    def is_apart(block: nn.Module) -> bool:
        own = Counter(id(parameter) for part in block.modules() for parameter in part.parameters(recurse=False))
        return bool(own) and all(uses[key] == count for key, count in own.items())

    return [block for block in dict.fromkeys(found) if is_apart(block)]


def _members(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of containers."""
    for child in module.children():
        if isinstance(module, _CONTAINERS) and not isinstance(child, _CONTAINERS):
            yield child
        else:
            yield from _members(child)


def whole(module: nn.Module) -> dict[str, Tensor]:
    """The module's whole state on the CPU, on rank 0; nothing on the others. All ranks call it together."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: dict[str, Any] = get_model_state_dict(
        module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return state


def held(module: nn.Module) -> int:
    """How many parameters this rank keeps: of a sharded one its share."""
    return sum(local(parameter).numel() for parameter in module.parameters())


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which each rank has a part."""
    return hasattr(tensor, "to_local")  # importing the class to ask takes half a second


def local(tensor: Any) -> Tensor:
    """This rank's part of a tensor; all of it where it is not sharded."""
    mine: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return mine
