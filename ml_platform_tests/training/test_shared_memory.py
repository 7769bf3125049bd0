"""Ranks of one machine come to the same mean through shared memory, and notice when one of them has ended."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from ml_platform.errors import TrainingError
from ml_platform.training import shared_memory
from ml_platform.training.place import Place
from ml_platform.training.shared_memory import PLACE_BYTES, shared_sums

SIZES = (1, 1000, PLACE_BYTES // 4, PLACE_BYTES // 2 + 3)  # of float32: below one place, one, more than two
ROUNDS = 20


def values(rank: int, size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(rank)).to(dtype)


def in_order(world: int, size: int, dtype: torch.dtype) -> Tensor:
    """The mean as it is defined: each value times 1 / world, summed in the order of the ranks."""
    total = values(0, size, dtype) * (1 / world)
    for rank in range(1, world):
        total += values(rank, size, dtype) * (1 / world)
    return total


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory that is this test's alone: jobs of others come and go beside it."""
    place = shared_memory._MEMORY
    folder = Path(tempfile.mkdtemp(prefix="test-", dir=place if place.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def one_rank(rank: int, world: int, folder: str, memory: Path) -> None:
    """Fails by an exception, which `spawn` brings to the test."""
    shared_memory._MEMORY = memory
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    place = Place(rank, world, "cpu", "gloo", rank, world)
    sums = shared_sums(place)
    assert sums is not None
    for size in SIZES:
        for dtype in (torch.float32, torch.float64):
            for _ in range(ROUNDS):
                mine = values(rank, size, dtype)
                sums.mean(mine)
                assert torch.equal(mine, in_order(world, size, dtype))
        if world == 2:
            by_gloo = values(rank, size, torch.float32) * 0.5
            dist.all_reduce(by_gloo)
            assert torch.equal(by_gloo, in_order(world, size, torch.float32))
    assert shared_sums(Place(rank, world, "cpu", "gloo", 0, 1)) is None, "ranks on several machines"
    hasty = shared_sums(place, patience=0.1)
    assert hasty is not None
    if rank == 0:
        with pytest.raises(TrainingError, match=f"^Rank {world - 1} does not come"):
            hasty.mean(torch.ones(1))
    elif rank < world - 1:
        with pytest.raises((TrainingError, ConnectionError)):
            hasty.mean(torch.ones(1))
    dist.barrier()
    if rank == world - 1:
        os._exit(0)
    with pytest.raises(ConnectionError, match=r"by peer|Broken pipe"):
        sums.mean(torch.ones(1))
    os._exit(0)  # gloo would wait for who has gone


@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_comes_to_the_mean_in_the_order_of_ranks(tmp_path: Path, memory: Path, world: int) -> None:
    torch.multiprocessing.spawn(one_rank, (world, str(tmp_path), memory), nprocs=world)  # type: ignore[no-untyped-call]
    assert list(memory.iterdir()) == [], "nothing is left but what is open"
