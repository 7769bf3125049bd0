"""Takes and finds the checkpoints of one job; the same calls on every rank.

Training is held up only while the state is copied. Behind it, through a group of their own, the ranks write their parts
together, tell each other the hashes, and commit. A part that cannot be written, on whichever rank, costs all of them
that checkpoint, and none of them the training.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml_platform.behind import Behind
from ml_platform.errors import TrainingError
from ml_platform.training import said
from ml_platform.training.checkpoint import folder, parts, resumed, state
from ml_platform.training.checkpoint.interval import interval
from ml_platform.training.config import TrainingJob
from ml_platform.training.place import Place
from ml_platform.training.precision import Stateful
from ml_platform.training.preemption import Asked, PreemptedError
from ml_platform.training.seeding import seed_by

LISTENED_EVERY = 1.0
"""Seconds between two moments at which the ranks tell each other that one was asked to end."""
_SCHEMA = 3


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
    """The checkpoints of one job.

    Args:
        job: which.
        place: this rank's.
        topology: what the bytes depend on beside the job. A checkpoint of another is used where the recipe is elastic.
        say: told what is found; rank 0's only.
        asked: set when this process was asked to end (`preemption.listen`).
    """

    job: TrainingJob
    place: Place
    topology: dict[str, Any]
    say: Callable[[str], None] = lambda line: None
    asked: Asked = field(default_factory=Asked)
    held_up: float = 0.0
    """Seconds for which checkpoints have held training up."""
    taken: int = 0
    resumed_on: list[dict[str, Any]] = field(default_factory=list)
    """Where training went on with another topology, `before` and `after`: the bytes are not an undisturbed run's."""
    _next: int = 0
    _since: tuple[int, float] | None = None
    _begun: float = field(default_factory=time.perf_counter)
    _cost: float = 0.0
    _written: float = 0.0
    _ending: bool = False
    _found: tuple[parts.Parts, dict[str, Any]] | None = None
    _past: dict[str, Any] = field(default_factory=lambda: {"failures": 0, "trained": 0.0})
    _copy: state.Copy = field(default_factory=state.Copy)
    _behind: Behind = field(default_factory=Behind)

    def __post_init__(self) -> None:
        # A group of its own: what is written behind training must not wait for what training sends, nor the reverse.
        self._group = dist.new_group(backend="gloo") if self.place.world > 1 else None

    @property
    def folder(self) -> Path:
        """Where they are."""
        return folder.place_of(Path(self.job.output))

    def find(self, steps: int) -> Progress | None:
        """Look for the newest whole checkpoint of this job. `restore` then puts its state in place.

        Args:
            steps: of an epoch.
        """
        if self._keeps:
            folder.tidy(self.folder)
        for name in self.place.gather(folder.listed(self.folder))[0]:
            refused = [why for why in self.place.gather(self._refuse(name, steps) if self._keeps else "") if why]
            if not refused:
                return self._open(name)
            self.say(f"the checkpoint {name} is {refused[0]} and is not used")
            if self._keeps:  # it is in nobody's way, and of no use
                folder.remove(self.folder, name)
        return None

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer, scaler: Stateful | None = None) -> None:
        """Put the found checkpoint's state in place."""
        assert self._found is not None
        found, manifest = self._found
        state.restore(found, manifest["numbers"], module, optimizer)
        if scaler is not None:
            scaler.load_state_dict(manifest["scaler"])
        if manifest["topology"] == self.topology:
            state.set_random_state(self._own(found, "torch", "cuda", "others"))
        else:
            seed_by(self.job.recipe.seed, "rank", self.place.rank, "of", self.place.world, "after", manifest["done"])
        self._found = None

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
        left = -elapsed + interval(
            self._cost + self._written,  # behind training, and still takes from it where no core is idle
            trained=trained,
            failures=self._past["failures"],
            most=self.job.recipe.checkpoint_seconds,
            share=self.job.recipe.checkpoint_share,
        )
        # Not far beyond what was measured: steps may become slower, and who asks for an end must be heard.
        more = min(math.ceil(min(left, LISTENED_EVERY) / (elapsed / steps)), 2 * steps) if left > 0 else 0
        told = self.place.gather((more, self.asked.is_set()))
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
        self._behind.wait()  # what is copied into is read until then
        changing = state.tensors_of(module, optimizer)
        mine = self._copy.take(state.written_by(changing, module, self.place.rank, self.place.local_world))
        own = {"losses": progress.losses.to("cpu", copy=True), **state.random_state()}
        manifest = {
            "schema": _SCHEMA,
            "job": self._identity(),
            "topology": self.topology,
            "resumed_on": self.resumed_on,
            "steps": len(progress.losses),
            "numbers": state.numbers_of(optimizer),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "done": done,
            "failures": self._past["failures"],
            "trained": self._past["trained"] + begun - self._begun,
            **{name: getattr(progress, name) for name in ("epoch", "step", "results", "seconds")},
        }
        self._behind.do(self._write, mine, own, manifest)
        if self._ending:
            self.finish()
            self.place.gather(None)  # nobody ends before it is safe: torchrun would kill the others
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
        if self._keeps:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _keeps(self) -> bool:
        """Whether this rank looks after the folder, for all that share its disk."""
        return self.place.local_rank == 0

    def _identity(self) -> str:
        return hashlib.sha256(json.dumps(self.job.identity(), sort_keys=True).encode()).hexdigest()

    def _refuse(self, name: str, steps: int) -> str:
        """Why a checkpoint cannot be gone on from; "" where it can."""
        manifest = folder.read(self.folder, name)
        if manifest is None:
            return "damaged"
        if (manifest["schema"], manifest["job"]) != (_SCHEMA, self._identity()):
            return "of another job"
        if manifest["topology"] != self.topology and not self.job.recipe.elastic:
            return "of another topology, and the recipe is not elastic,"
        if manifest["steps"] != steps:
            return "of epochs with another number of steps"
        try:
            parts.Parts(self.folder / name)
        except TrainingError as error:
            return f"not one that was written here ({error.got})"
        return ""

    def _open(self, name: str) -> Progress:
        found, manifest = parts.Parts(self.folder / name), folder.manifest(self.folder, name)
        self._found = found, manifest
        self._past = {"failures": manifest["failures"] + 1, "trained": manifest["trained"]}
        self.resumed_on = manifest["resumed_on"]
        at = {"epoch": manifest["epoch"], "step": manifest["step"]}
        self.say("goes on from a checkpoint: epoch {epoch}, step {step}".format(**at))
        if manifest["topology"] == self.topology:
            losses = self._own(found, "losses")["losses"]
        else:
            self.resumed_on.append({**at, "before": manifest["topology"], "after": self.topology})
            self.say(f"{resumed.describe(self.resumed_on[-1])}: {resumed.BYTES}")
            ranks = range(manifest["topology"]["processes"])
            losses = torch.stack(list(found.read_alone([f"rank.{rank}.losses" for rank in ranks]).values())).mean(0)
        return Progress(**at, results=manifest["results"], losses=losses, seconds=manifest["seconds"])

    def _own(self, found: parts.Parts, *names: str) -> dict[str, Tensor]:
        """What the checkpoint has of this very rank."""
        of = f"rank.{self.place.rank}."
        there = found.read_alone([of + name for name in names if of + name in found.shapes])
        return {name.removeprefix(of): value for name, value in there.items()}

    def _write(self, mine: dict[str, Tensor], own: dict[str, Tensor], manifest: dict[str, Any]) -> None:
        """Behind training, on all ranks together."""
        begun = time.thread_time()  # what it waits for, the disk and other ranks, takes nothing from training
        draft = folder.draft_of(self.folder, manifest["done"])
        rank, first = self.place.rank, self.place.rank < self.place.local_world
        try:
            # Small, and so all in rank 0's: a model that is not sharded has no part on another machine.
            ranks = self._gather(own)
            if rank == 0:
                mine = mine | {
                    f"rank.{r}.{name}": value for r, each in enumerate(ranks) for name, value in each.items()
                }
            files = parts.write(mine, draft, self._group, rank)
            told = self._gather((_digests(draft, files), manifest))
            if problem := next((problem for (_, problem), _ in told if problem), ""):
                raise parts.WriteError(problem)
            digests = {name: sha256 for (found, _), _ in told for name, sha256 in found.items()}
            if self._keeps:
                folder.commit(draft, {**told[0][1], "files": digests}, first=first)
        except (OSError, RuntimeError, parts.WriteError) as error:
            # What is trained is worth more than what could be lost: the next one may succeed.
            done = manifest["done"]
            gone = said.is_of_a_lost_peer(str(error))
            why = "another rank has ended" if gone else f"training goes on without it: {error}"
            self.say(f"the checkpoint after step {done} cannot be written, {why}")
            if self._keeps:
                shutil.rmtree(draft, ignore_errors=True)
        if self._keeps:
            for name in folder.listed(self.folder)[folder.KEPT :]:
                folder.remove(self.folder, name)
        self._written = time.thread_time() - begun

    def _gather(self, value: Any) -> list[Any]:
        """As `Place.gather`, behind training."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.place.world
        dist.all_gather_object(values, value, group=self._group)
        return values


def _digests(draft: Path, files: list[str]) -> tuple[dict[str, str], str]:
    """The hashes, or what is wrong: told to the others, so that all give up together."""
    try:
        return folder.digests(draft, files), ""
    except OSError as error:
        return {}, str(error)
