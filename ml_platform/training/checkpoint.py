"""Checkpoints of a running job: a job that is killed and started again goes on, and ends with the same bytes.

A checkpoint is taken between two steps and holds all that the next step depends on: weights, the state of the optimizer
and of float16's scaler, the random states of every rank, and where in which epoch training is. The order of the rows is
not in it, because it follows from the seed: a resumed epoch draws its batches again and passes over those that were
seen.

Training is held up only while the state is copied; it is written behind training. Checkpoints lie beside the job's
output as `.NAME.checkpoints/STEP-HASH.pt`, written under another name, flushed and renamed. The newest two are kept:
one that is damaged gives way to the one before. When the model is written they are removed.

How often: every sqrt(2 * cost * mean time between failures) seconds, where lost work and the cost of checkpoints are
least together (J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17, 1974; J. T.
Daly, "A higher order estimate of the optimum checkpoint interval", FGCS 22, 2006). The cost is what was measured last;
the time between failures is what this job has seen, beside one failure a day until it knows better.
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

from ml_platform.behind import Behind
from ml_platform.training.config import TrainingJob
from ml_platform.training.precision import Stateful
from ml_platform.training.preemption import Asked, PreemptedError

KEPT = 2
WORTH = 30
"""A checkpoint, copying and writing, may take one part in so many of the time between two."""
FAILURE_FREE = 24 * 3600.0
"""Seconds for which a job is thought to train between two failures before it has seen any."""
LISTENED_EVERY = 1.0
"""Seconds between two moments at which the ranks tell each other that one was asked to end."""
_NAME = re.compile(r"(\d+)-([0-9a-f]{32})\.pt")
_SCHEMA = 2


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


def interval(cost: float, *, trained: float, failures: int, most: float) -> float:
    """Seconds of training from one checkpoint to the next, by Young's formula.

    Args:
        cost: seconds that a checkpoint takes.
        trained: seconds for which the job has trained, in all its attempts.
        failures: how often it was ended from outside.
        most: seconds of training that may be lost at most; a checkpoint that is so costly that it would take more than
            one part in `WORTH` is taken less often all the same.
    """
    between = (FAILURE_FREE + trained) / (1 + failures)
    return max(WORTH * cost, min(most, math.sqrt(2 * cost * between)))


@dataclass
class Checkpoints:
    """Takes and finds the checkpoints of one job; the same calls on every rank.

    Args:
        job: which.
        rank: this one.
        gather: gives every rank's value to every rank, in rank order.
        topology: what the bytes depend on beside the job; a checkpoint of another is not used.
        say: told what is found; rank 0's only.
        asked: set when this process was asked to end (`preemption.listen`).
    """

    job: TrainingJob
    rank: int
    gather: Callable[[Any], list[Any]]
    topology: dict[str, Any]
    say: Callable[[str], None] = lambda line: None
    asked: Asked = field(default_factory=Asked)
    held_up: float = 0.0
    """Seconds for which checkpoints have held training up."""
    taken: int = 0
    _next: int = 0
    _since: tuple[int, float] | None = None
    _begun: float = field(default_factory=time.perf_counter)
    _cost: float = 0.0
    _written: float = 0.0
    _ending: bool = False
    _found: dict[str, Any] = field(default_factory=dict)
    _past: dict[str, Any] = field(default_factory=lambda: {"failures": 0, "trained": 0.0})
    _behind: Behind = field(default_factory=Behind)

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
        self._past = {"failures": found["failures"] + 1, "trained": found["trained"]}
        self.say(f"goes on from a checkpoint: epoch {found['epoch']}, step {found['step']}")
        return Progress(found["epoch"], found["step"], found["results"], found["losses"][self.rank], found["seconds"])

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, scaler: Stateful | None = None) -> None:
        """Put the found checkpoint's state in place."""
        module.load_state_dict(self._found["module"])
        optimizer.load_state_dict(self._found["optimizer"])
        if scaler is not None:
            scaler.load_state_dict(self._found["scaler"])
        _set_random_state(self._found["random"][self.rank])
        self._found = {}

    def due(self, done: int) -> bool:
        """Whether one is to be taken after `done` steps in all. Ranks ask after each step, and get the same answer."""
        now = time.perf_counter()
        if self._since is None:  # the first step is slower than the others
            self._since, self._next, self.asked.can_wait = (done, now), done + 1, True
            return False
        if done < self._next:
            return False
        elapsed, steps = max(1e-9, now - self._since[1]), done - self._since[0]
        trained = self._past["trained"] + now - self._begun
        most, failures = self.job.recipe.checkpoint_seconds, self._past["failures"]
        # Writing happens behind training, and still takes from it where no core is idle.
        left = interval(self._cost + self._written, trained=trained, failures=failures, most=most) - elapsed
        more = math.ceil(min(left, LISTENED_EVERY) / (elapsed / steps)) if left > 0 else 0
        told = self.gather((more, self.asked.is_set()))
        self._ending = any(asked for _, asked in told)
        self._next = done + max(1, told[0][0])  # by rank 0's clock
        return self._ending or told[0][0] <= 0

    def take(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        done: int,
        scaler: Stateful | None = None,
    ) -> None:
        """Take one, after `done` steps in all. It is safe when the next one is taken, or after `finish`.

        Raises:
            PreemptedError: a rank was asked to end. The checkpoint is safe.
        """
        begun = time.perf_counter()
        mine = {"losses": progress.losses.cpu(), "random": _random_state()}
        parts = self.gather(mine)
        if self.rank == 0:
            state = {
                "schema": _SCHEMA,
                "job": self._identity(),
                "module": _copy(module.state_dict()),
                "optimizer": _copy(optimizer.state_dict()),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "failures": self._past["failures"],
                "trained": self._past["trained"] + begun - self._begun,
                **{name: [part[name] for part in parts] for name in mine},
                **{name: getattr(progress, name) for name in ("epoch", "step", "results", "seconds")},
            }
            self._behind.do(self._write, state, done)
        if self._ending:
            self.finish()
            self.gather(None)  # nobody ends before it is safe: torchrun would kill the others
            raise PreemptedError(f"asked to end; goes on after step {done}")
        now = time.perf_counter()
        self._cost, self._since, self._next = now - begun, (done, now), done + 1
        self.held_up, self.taken = self.held_up + self._cost, self.taken + 1

    def finish(self) -> None:
        """Wait until what was taken is safe, or could not be written."""
        self._behind.wait()

    def remove(self) -> None:
        """The job has ended well: nobody needs them."""
        self.finish()
        if self.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _identity(self) -> str:
        record = {"job": self.job.identity(), "topology": self.topology}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def _write(self, state: dict[str, Any], done: int) -> None:
        begun = time.perf_counter()
        draft = self.folder / f".draft.{os.getpid()}"
        try:
            self.folder.mkdir(exist_ok=True)
            with draft.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.folder / f"{done}-{_digest(draft)}.pt")
            handle = os.open(self.folder, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        except (OSError, RuntimeError) as error:  # torch tells of a full disk by a RuntimeError
            # What is trained is worth more than what could be lost: the next one may succeed.
            self.say(f"the checkpoint after step {done} cannot be written, training goes on without it: {error}")
            draft.unlink(missing_ok=True)
        for path in self._listed()[KEPT:]:
            path.unlink(missing_ok=True)
        self._written = time.perf_counter() - begun

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


def _copy(state: Any) -> Any:
    """A state on the CPU that training does not change any more."""
    if isinstance(state, Tensor):
        return state.detach().cpu() if state.device.type != "cpu" else state.detach().clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    return [_copy(value) for value in state] if isinstance(state, list) else state


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
