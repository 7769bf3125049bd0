"""The training loop: one rank's part of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ml_platform.errors import TrainingError
from ml_platform.naming import load_named
from ml_platform.pipeline import Recipe, Task
from ml_platform.training.checkpoint.checkpoints import Checkpoints, Progress
from ml_platform.training.loader import Batch, Cuts, Loader
from ml_platform.training.precision import MixedPrecision

Report = Callable[[dict[str, Any]], None]
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
_CHECK_EVERY = {"cpu": 1, "cuda": 50}  # reading a loss makes the CPU wait for the GPU


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. `train_loss` is the mean over all ranks' rows; `learning_rate` is the last step's."""

    epoch: int
    train_loss: float
    learning_rate: float
    seconds: float
    samples_per_second: float


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: a linear warm-up, then a cosine to nothing."""
    warm = round(recipe.warmup * steps)
    if step < warm:
        return recipe.learning_rate * (step + 1) / (warm + 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def loss_function(task: Task, name: str | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The recipe's loss, or the task's usual one. Targets: int64 (rows,) for multiclass, else float32 (rows, 1)."""
    if name is not None:
        loss: Callable[[Tensor, Tensor], Tensor] = load_named(name)
        return loss
    usual: dict[Task, Callable[[Tensor, Tensor], Tensor]] = {
        "binary": nn.functional.binary_cross_entropy_with_logits,
        "multiclass": nn.functional.cross_entropy,
        "regression": nn.functional.mse_loss,
    }
    return usual[task]


def optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Build the recipe's optimizer. Raises TrainingError where it cannot be built."""
    kind = getattr(torch.optim, recipe.optimizer, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise TrainingError("There is no such optimizer.", where="Recipe.optimizer", got=recipe.optimizer)
    options = {"lr": recipe.learning_rate, **recipe.optimizer_options}
    plain = all(parameter.is_floating_point() for parameter in model.parameters())
    if kind in _FUSED and plain and not options.keys() & {"fused", "foreach", "differentiable"}:
        options["fused"] = True  # one pass over the parameters: a quarter of the time
    try:
        return kind(model.parameters(), **options)
    except (TypeError, ValueError) as error:
        raise TrainingError("The optimizer refuses its options.", where=recipe.optimizer, got=error) from error


def train(
    model: nn.Module,
    loader: Loader,
    cuts: Cuts,
    *,
    task: Task,
    recipe: Recipe,
    rank: int,
    device: str,
    report: Report,
    progress_seconds: float,
    checkpoints: Checkpoints | None = None,
) -> list[EpochResult]:
    """Train `model` (wrapped for DistributedDataParallel where there are several ranks) through all epochs.

    Args:
        report: called with progress: at each epoch's end, and within it at most every `progress_seconds`.
        checkpoints: where training that was ended goes on from, and what it is saved into; None for neither.

    Raises:
        TrainingError: the loss is not finite, or the model returns logits of the wrong shape.
        PreemptedError: the job was asked to end, and a checkpoint is safe.
    """
    loss_of = loss_function(task, recipe.loss)
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    steps, total = cuts.steps, cuts.steps * recipe.epochs
    weights = [cuts.weight(rank, step) for step in range(steps)]
    sizes = torch.tensor([stop - start for start, stop in (cuts.bounds(rank, s) for s in range(steps))])
    losses = torch.zeros(steps, device=device)
    check = _CHECK_EVERY["cuda" if device.startswith("cuda") else "cpu"]
    adjust = optimizer(recipe, model)
    precision = MixedPrecision(recipe.precision, device)
    results = []
    model.train()
    resumed = checkpoints.find(steps) if checkpoints else None
    if resumed is not None:
        results = [EpochResult(**result) for result in resumed.results]
        losses.copy_(resumed.losses)
    for epoch in range(resumed.epoch if resumed else 1, recipe.epochs + 1):
        begun = reported = time.perf_counter()
        rate = 0.0
        for step, batch in enumerate(loader.epoch(epoch)):
            if resumed is not None and checkpoints is not None:
                if step < resumed.step:
                    continue
                if model is not bare:
                    # After its first step DistributedDataParallel orders its buckets anew, and the order of sums with
                    # them: this step, whose effect is undone, makes the next one the second.
                    with precision.shorter():
                        loss = loss_of(precision.full(_logits(model, batch, recipe)), batch.target)
                    precision.backward(loss)
                checkpoints.restore(bare, adjust, precision.scaler)
                begun -= resumed.seconds
                resumed = None
            done = (epoch - 1) * steps + step + 1
            rate = learning_rate(recipe, done - 1, total)
            for group in adjust.param_groups:
                group["lr"] = rate
            with precision.shorter():
                logits = precision.full(_logits(model, batch, recipe))
                if step == 0 and epoch == 1:
                    _check_logits(logits, batch.target, task, recipe)
                loss = loss_of(logits, batch.target)
            adjust.zero_grad(set_to_none=True)
            precision.backward(loss if weights[step] == 1.0 else loss * weights[step])
            losses[step] = loss.detach()
            if (step + 1) % check == 0 or step + 1 == steps:
                _check_finite(losses[max(0, step + 1 - check) : step + 1], epoch, step + 1, steps, rank)
            precision.step(adjust)
            if rank == 0 and (now := time.perf_counter()) - reported >= progress_seconds:
                reported = now
                _report_step(report, epoch, step + 1, steps, losses, sizes, rate, cuts.world, now - begun)
            if checkpoints and step + 1 < steps and checkpoints.due(done):
                seconds = time.perf_counter() - begun
                place = Progress(epoch, step + 1, [vars(result) for result in results], losses, seconds)
                checkpoints.take(bare, adjust, place, done, precision.scaler)
        mean = _mean_loss(losses, sizes, cuts)
        seconds = time.perf_counter() - begun
        results.append(EpochResult(epoch, mean, rate, seconds, cuts.rows / seconds))
        if rank == 0:
            report({**vars(results[-1]), "epochs": recipe.epochs})
        if checkpoints and epoch < recipe.epochs and checkpoints.due(epoch * steps):
            place = Progress(epoch + 1, 0, [vars(result) for result in results], losses, 0.0)
            checkpoints.take(bare, adjust, place, epoch * steps, precision.scaler)
    return results


def _report_step(
    report: Report,
    epoch: int,
    step: int,
    steps: int,
    losses: Tensor,
    sizes: Tensor,
    rate: float,
    world: int,
    seconds: float,
) -> None:
    seen = sizes[:step].sum().item()
    mean = (losses[:step].double().cpu() @ sizes[:step].double()).item() / seen
    speed = seen * world / seconds
    report(
        {
            "epoch": epoch,
            "step": step,
            "steps": steps,
            "train_loss": mean,
            "learning_rate": rate,
            "seconds": seconds,
            "samples_per_second": speed,
        }
    )


def _mean_loss(losses: Tensor, sizes: Tensor, cuts: Cuts) -> float:
    total = (losses.double().cpu() @ sizes.double()).reshape(1)
    if cuts.world > 1:
        dist.all_reduce(total)  # a CPU tensor: gloo, also beside nccl
    return total.item() / cuts.rows


def _logits(model: nn.Module, batch: Batch, recipe: Recipe) -> Tensor:
    try:
        logits: Tensor = model(batch.numeric, batch.categorical)
    except RuntimeError as error:
        if not (isinstance(model, DistributedDataParallel) and "Expected to have finished reduction" in str(error)):
            raise
        # torch advises its own options, which nobody has here.
        unused = [name for name, p in model.module.named_parameters() if p.requires_grad and p.grad is None]
        raise TrainingError(
            "The loss of a step does not depend on each of the model's parameters, as several processes need it.",
            where=recipe.model,
            got=f"no gradient for {', '.join(unused)}",
            fix="use them in every step, freeze them (requires_grad_(False)), leave them out, or set processes=1",
        ) from None
    return logits


def _check_logits(logits: Tensor, target: Tensor, task: Task, recipe: Recipe) -> None:
    if (task != "multiclass" and logits.shape != target.shape) or len(logits) != len(target) or logits.ndim != 2:
        raise TrainingError(
            "The model returns logits of the wrong shape.",
            where=recipe.model,
            got=f"{tuple(logits.shape)} for {len(target)} rows",
            fix="return (rows, inputs.outputs)",
        )


def _check_finite(losses: Tensor, epoch: int, end: int, steps: int, rank: int) -> None:
    bad = torch.isfinite(losses).logical_not()
    if bad.any():
        step = end - len(losses) + int(bad.nonzero()[0].item()) + 1
        raise TrainingError(
            "The loss is not finite.",
            where=f"epoch {epoch}, step {step} of {steps}, rank {rank}",
            got=losses[step - 1 - end + len(losses)].item(),
            fix="lower the learning rate, or look for extreme values in the features",
        )
