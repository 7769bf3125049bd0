"""Random numbers that can be drawn again."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed(value: int) -> None:
    """Seed torch, numpy and Python alike."""
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


def generator(*key: object) -> torch.Generator:
    """A random number generator named by its key (seed, epoch, rank, purpose): no two purposes share numbers."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def seed_by(*key: object) -> None:
    """Seed all by a key."""
    seed(int(generator(*key).initial_seed()))
