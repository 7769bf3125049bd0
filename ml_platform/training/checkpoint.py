"""Checkpoints of a running job: a job that is killed and started again goes on, and ends with the same bytes.

A checkpoint is taken between two steps and holds all that the next step depends on: weights, the optimizer's state, the
random states of every rank, and where in which epoch training is. The order of the rows is not in it, because it
follows from the seed: a resumed epoch draws its batches again and passes over those that were seen.

They lie beside the job's output as `.NAME.checkpoints/STEP-HASH.pt`, written under another name, flushed and renamed.
The newest two are kept: one that is damaged gives way to the one before. When the model is written they are removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ml_platform.training.config import TrainingJob

KEPT = 2
WORTH = 30
"""A checkpoint may take one part in so many of the time between two."""
_NAME = re.compile(r"(\d+)-([0-9a-f]{32})\.pt")
_SCHEMA = 1


@dataclass
class Progress:
    """Where training is: before step `step` (from 0) of epoch `epoch` (from 1).

    Args:
        epoch, step: what comes next.
        results: of the epochs that are done, as JSON.
        losses: of this rank's steps in this epoch, float32 (steps,).
        seconds: spent in this epoch.
    """

    epoch: int
    step: int
    results: list[dict[str, Any]]
    losses: Tensor
    seconds: float


@dataclass
class Checkpoints:
    """Takes and finds the checkpoints of one job; the same calls on every rank.

    Args:
        job: which.
        rank: this one.
        gather: gives every rank's value to every rank, in rank order.
        topology: what the bytes depend on beside the job; a checkpoint of another is not used.
        say: told what is found; rank 0's only.
    """

    job: TrainingJob
    rank: int
    gather: Callable[[Any], list[Any]]
    topology: dict[str, Any]
    say: Callable[[str], None] = lambda line: None
    _next: int = 0
    _since: tuple[int, float] | None = None
    _cost: float = 0.0
    _found: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where they are."""
        output = Path(self.job.output)
        return output.with_name(f".{output.name}.checkpoints")

    def find(self) -> Progress | None:
        """Look for the newest whole checkpoint of this job. `restore` then puts its state in place."""
        name = self.gather(self._newest() if self.rank == 0 else None)[0]
        if name is None:
            return None
        self._found = torch.load(self.folder / name, map_location="cpu", weights_only=True)
        found = self._found
        self.say(f"goes on from a checkpoint: epoch {found['epoch']}, step {found['step']}")
        return Progress(found["epoch"], found["step"], found["results"], found["losses"][self.rank], found["seconds"])

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put the found checkpoint's state in place."""
        module.load_state_dict(self._found["module"])
        optimizer.load_state_dict(self._found["optimizer"])
        _set_random_state(self._found["random"][self.rank])
        self._found = {}

    def due(self, done: int) -> bool:
        """Whether one is to be taken after `done` steps in all. Ranks ask after each step, and get the same answer."""
        now = time.perf_counter()
        if self._since is None:  # the first step is slower than the others
            self._since, self._next = (done, now), done + 1
            return False
        if done < self._next:
            return False
        elapsed, steps = max(1e-9, now - self._since[1]), done - self._since[0]
        left = max(self.job.recipe.checkpoint_seconds, WORTH * self._cost) - elapsed
        more: int = self.gather(math.ceil(left / (elapsed / steps)))[0]  # by rank 0's clock, told to all
        self._next = done + more
        return more <= 0

    def take(self, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, done: int) -> None:
        """Take one, after `done` steps in all. When it returns on rank 0, it is safe."""
        begun = time.perf_counter()
        mine = {"losses": progress.losses.cpu(), "random": _random_state()}
        parts = self.gather(mine)
        if self.rank == 0:
            self._write(
                {
                    "schema": _SCHEMA,
                    "job": self._identity(),
                    "module": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    **{name: [part[name] for part in parts] for name in mine},
                    **{name: getattr(progress, name) for name in ("epoch", "step", "results", "seconds")},
                },
                done,
            )
        now = time.perf_counter()
        self._cost, self._since, self._next = now - begun, (done, now), done + 1

    def remove(self) -> None:
        """The job has ended well: nobody needs them."""
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _identity(self) -> str:
        record = {"job": self.job.identity(), "topology": self.topology}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def _write(self, state: dict[str, Any], done: int) -> None:
        self.folder.mkdir(exist_ok=True)
        draft = self.folder / f".draft.{os.getpid()}"
        with draft.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.folder / f"{done}-{_digest(draft)}.pt")
        handle = os.open(self.folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        for path in self._listed()[KEPT:]:
            path.unlink(missing_ok=True)

    def _newest(self) -> str | None:
        """The newest whole checkpoint of this very job. Others are removed: they are in nobody's way, and of no use."""
        for path in self._listed():
            match = _NAME.fullmatch(path.name)
            if match is not None and _digest(path) == match[2]:
                state = torch.load(path, map_location="cpu", weights_only=True)
                if (state.get("schema"), state.get("job")) == (_SCHEMA, self._identity()):
                    return path.name
                self.say(f"the checkpoint {path.name} is of another job and is not used")
            else:
                self.say(f"the checkpoint {path.name} is damaged and is not used")
            path.unlink(missing_ok=True)
        return None

    def _listed(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        return sorted(self.folder.glob("*-*.pt"), key=lambda path: -int(path.name.partition("-")[0]))


def _random_state() -> dict[str, Any]:
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,  # type: ignore[no-untyped-call]
        "numpy": (kind, np.asarray(keys).tolist(), place, has_gauss, gauss),
        "python": random.getstate(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    random.setstate(state["python"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
