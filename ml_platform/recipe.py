"""What a team writes of its model: a `Recipe`, or several candidates; and whether it goes on from the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any, Literal, get_args

from ml_platform import declared
from ml_platform.errors import DeclarationError
from ml_platform.naming import check_named

Choose = Literal["best", "average"]
"""Of several candidates: the best one goes on, or a model that averages what all of them say."""
Precision = Literal["float32", "bfloat16", "float16"]
"""What the network's sums and products are computed in. Weights are float32 in any case."""

TRAINED_MODEL = "trained_model"
AVERAGE = "average"
"""What the average of all candidates is called among them."""
CANDIDATE = "candidate_"
"""What the name of a stage that trains a candidate begins with."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Training goes on from the champion's weights, with the batches that it has not seen and a share of those it has.

    Args:
        replay: share of the rows that the champion has seen, 0 to 1, which are seen again, lest they be forgotten.
    """

    replay: float = 0.2

    def __post_init__(self) -> None:
        if not (declared.is_finite(self.replay) and 0 <= self.replay <= 1):
            raise DeclarationError("The replay share lies in 0 to 1.", where="WarmStart.replay", got=repr(self.replay))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, its loss and its hyperparameters. The same training set, recipe and topology give the same bytes.

    Args:
        model: "module:function" with the signature `(inputs, **hyperparameters) -> torch.nn.Module`; see
            `ml_platform.training.model_inputs.ModelInputs`. The module's forward takes `(numeric, categorical)`:
            float32 of shape (rows, inputs.numeric_width) and int64 of shape (rows, len(inputs.cardinalities)), and
            returns float32 logits of shape (rows, inputs.outputs).
        hyperparameters: keyword arguments of the model.
        loss: "module:function" of `(logits, target) -> scalar`, or None for the task's usual one.
        optimizer: a class of `torch.optim`.
        optimizer_options: its further keyword arguments.
        learning_rate: peak rate; it warms up linearly over `warmup` of the steps, then falls on a cosine to nothing.
        epochs: passes over the training rows.
        batch_size: rows an optimizer step, over all processes together.
        warmup: share of the steps, 0 to 1.
        processes: how many ranks train together. Part of the topology, so of the model's fingerprint.
        threads: of each process, on a CPU. Part of the topology too: sums of floats depend on it.
        memory_mib: MiB up to which a process keeps its rows in memory; larger data is streamed, in another order, so
            it is part of the fingerprint.
        seed: of every random number.
        precision: what forward and loss are computed in, where torch.autocast deems it safe. Weights, their gradients'
            sums over the ranks and the optimizer's state stay float32, and so does scoring. float16 comes with a scaled
            loss, lest small gradients vanish.
        compile: let torch.compile make one program of the module. It needs a C++ compiler, and on a GPU Triton; the
            first steps take seconds to minutes longer.
        restarts: how often a run of the stage starts a job again that was ended from outside (preempted, killed for
            memory). It cannot change the bytes, so it is not part of the fingerprint.
        checkpoint_seconds: how many seconds of training such a job may lose. Checkpoints are taken more often where
            that pays (`training.checkpoint.interval`). No part of the fingerprint either.
        checkpoint_share: how many seconds checkpoints may take for each second of training between them. One that is so
            costly that it would take more is taken less often, even if more than `checkpoint_seconds` may be lost then.
            No part of the fingerprint.
        timeout_seconds: how long the job may run, over all its restarts and all runs of the stage until its model is
            there; the wait for machines or quota is not counted. One that is not done then is ended with an error, and
            no run starts it again; None lets it run. No part of the fingerprint.
        gpu_hours: how much the job may cost: GPUs times hours, counted as for `timeout_seconds`; the tighter of the two
            ends it. A job on CPUs takes no GPU, and this does not hold it up. No part of the fingerprint.
        shard: divide weights, gradients and the optimizer's state among the processes, for a model that does not fit
            one device (`training.sharding`); of no effect with one process. Neither with float16 nor with `compile`.
        elastic: let a job that was interrupted go on with another number of processes, `threads` or `memory_mib`, or on
            another kind of device. None of these is part of the fingerprint then; the bytes may depend on them all the
            same, and the model says where they changed in mid-training.
        warm_start: begin with the champion's weights where there is a champion; None always begins anew.
    """

    model: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    loss: str | None = None
    optimizer: str = "AdamW"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-3
    epochs: int = 3
    batch_size: int = 1024
    warmup: float = 0.05
    processes: int = 2
    threads: int = 1
    memory_mib: int = 4096
    seed: int = 0
    precision: Precision = "float32"
    compile: bool = False
    restarts: int = 3
    checkpoint_seconds: float = 300.0
    checkpoint_share: float = 1 / 30
    timeout_seconds: float | None = None
    gpu_hours: float | None = None
    shard: bool = False
    elastic: bool = False
    warm_start: WarmStart | None = None

    def __post_init__(self) -> None:
        check_named("Recipe.model", self.model, "function")
        if self.loss is not None:
            check_named("Recipe.loss", self.loss, "function")
        for name in ("epochs", "batch_size", "processes", "threads", "memory_mib"):
            declared.whole_number("Recipe", name, getattr(self, name), 1)
        declared.whole_number("Recipe", "seed", self.seed, 0, 2**32 - 1)  # more, and scikit-learn refuses
        declared.whole_number("Recipe", "restarts", self.restarts, 0)
        if self.precision not in get_args(Precision):
            raise DeclarationError(
                "There is no such precision.",
                where="Recipe.precision",
                got=repr(self.precision),
                fix=", ".join(get_args(Precision)),
            )
        declared.instance("Recipe", "compile", self.compile, bool)
        declared.instance("Recipe", "elastic", self.elastic, bool)
        declared.instance("Recipe", "shard", self.shard, bool)
        if self.shard and (self.compile or self.precision == "float16"):
            raise DeclarationError(
                "A model that is divided among the processes cannot be compiled, nor trained in float16.",
                where="Recipe.shard",
                got="compile" if self.compile else "precision='float16'",
                fix="leave compile out, and use bfloat16",
            )
        if not (declared.is_finite(self.checkpoint_seconds) and self.checkpoint_seconds > 0):
            raise DeclarationError(
                "The time between checkpoints is positive.", where="Recipe", got=repr(self.checkpoint_seconds)
            )
        if not (declared.is_finite(self.checkpoint_share) and self.checkpoint_share > 0):
            raise DeclarationError(
                "The share of time for checkpoints is positive.",
                where="Recipe.checkpoint_share",
                got=repr(self.checkpoint_share),
            )
        for name, what in (("timeout_seconds", "A time limit"), ("gpu_hours", "A cost ceiling")):
            limit = getattr(self, name)
            if limit is not None and not (declared.is_finite(limit) and limit > 0):
                raise DeclarationError(f"{what} is positive.", where=f"Recipe.{name}", got=repr(limit))
        if self.warm_start is not None:
            if isinstance(self.warm_start, Mapping):  # as JSON has it
                object.__setattr__(self, "warm_start", WarmStart(**self.warm_start))
            declared.instance("Recipe", "warm_start", self.warm_start, WarmStart)
        for name in ("hyperparameters", "optimizer_options"):
            declared.json_values("Recipe", name, getattr(self, name))
        declared.optimizer("Recipe.optimizer", self.optimizer)
        declared.hyperparameters("Recipe.hyperparameters", self.model, self.hyperparameters)
        if self.batch_size % self.processes:
            raise DeclarationError(
                "The batch size must divide evenly among the processes.",
                where="Recipe",
                got=f"batch_size={self.batch_size}, processes={self.processes}",
                fix=f"write batch_size={-(-self.batch_size // self.processes) * self.processes}, say",
            )
        if not (declared.is_finite(self.learning_rate) and self.learning_rate > 0):
            raise DeclarationError(
                "The learning rate must be positive, and finite.", where="Recipe", got=repr(self.learning_rate)
            )
        if not (declared.is_finite(self.warmup) and 0 <= self.warmup <= 1):
            raise DeclarationError(
                "The warm-up is a share of the steps, 0 to 1.", where="Recipe", got=repr(self.warmup)
            )

    def identity(self) -> dict[str, Any]:
        """Everything that counts for the bytes of a model that begins anew.

        `precision`, `compile`, `shard` and `elastic` are left out where they are the default, as in older models.
        """
        apart = {"restarts", "checkpoint_seconds", "checkpoint_share", "timeout_seconds", "gpu_hours", "warm_start"}
        if self.elastic:
            apart |= {"processes", "threads", "memory_mib"}
        later = {"precision": "float32", "compile": False, "shard": False, "elastic": False}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in apart and not (name in later and value == later[name])
        }


def trains(stage: str) -> bool:
    """Whether a stage of that name trains, or may have: `trained_model`, or a candidate's."""
    return stage == TRAINED_MODEL or stage.startswith(CANDIDATE)


def check_candidates(where: str, recipe: Recipe | None, candidates: object, choose: object) -> None:
    """A pipeline has one recipe, or two candidates and more that differ and begin anew.

    Raises:
        DeclarationError: anything else.
    """
    if not isinstance(candidates, Mapping):
        raise DeclarationError("`candidates` must be a mapping of names to recipes.", where=where, got=repr(candidates))
    if choose not in ("best", "average"):
        raise DeclarationError(
            "There is no such choice.", where=f"{where}, choose", got=repr(choose), fix="best, average"
        )
    if not candidates:
        declared.instance(where, "recipe", recipe, Recipe)
        return
    if recipe is not None:
        raise DeclarationError(
            "A pipeline has one recipe or several candidates, not both.",
            where=where,
            got=f"recipe, and candidates {', '.join(map(str, candidates))}",
            fix="make the recipe one of the candidates",
        )
    if len(candidates) < 2:
        raise DeclarationError(
            "One candidate leaves nothing to choose.", where=where, got=", ".join(candidates), fix="write recipe=..."
        )
    for name, each in candidates.items():
        declared.identifier("Candidate", name)
        if name == AVERAGE:
            raise DeclarationError("A name is reserved for the platform.", where=f"{where}, candidates", got=name)
        declared.instance(f"{where}, candidates", name, each, Recipe)
        if each.warm_start is not None:
            raise DeclarationError(
                "A candidate cannot go on from the champion: that is another candidate's model, or an average of all.",
                where=f"{where}, candidates, {name}",
                got="warm_start",
                fix="leave warm_start out; or declare one recipe",
            )
    for (one, first), (other, second) in combinations(candidates.items(), 2):
        if first.identity() == second.identity():
            raise DeclarationError(
                "Two candidates are the same model.",
                where=where,
                got=f"{one}, {other}",
                fix="let them differ in something that counts, if only in the seed",
            )
