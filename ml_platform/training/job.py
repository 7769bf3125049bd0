"""One rank of a training job: `python -m ml_platform.training.job SPEC.json`, started by torchrun.

Reads its share, fits the preprocessing together with the others, trains with DistributedDataParallel (gloo on a CPU,
nccl where every rank has a GPU), and, as rank 0, writes the model folder. Without torchrun it is one process alone.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # while torch is imported, of which nothing is garbage: a fifth of the time, until `settle` is done

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel

from ml_platform.errors import TrainingError
from ml_platform.training import fitting, loader, loop, model_folder, plan, preemption, said, sharding, warm, watchdog
from ml_platform.training.checkpoint.checkpoints import Checkpoints
from ml_platform.training.compiled import compile_module
from ml_platform.training.config import TrainingJob
from ml_platform.training.ending import leave_after
from ml_platform.training.loader import Cuts, Loader
from ml_platform.training.place import Place
from ml_platform.training.preprocessing import Preprocessing
from ml_platform.training.report import Reporter, reporter
from ml_platform.training.seeding import seed, seed_by
from ml_platform.training.shared_memory import SharedSums, shared_sums


@contextmanager
def joined(job: TrainingJob) -> Iterator[Place]:
    """Join the other ranks, on the device that the job asks for.

    Raises:
        TrainingError: the number of ranks is not the recipe's, or a GPU is asked for where there is none.
    """
    world, local = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    if world != job.recipe.processes:
        raise TrainingError(
            "The job was started with another number of processes than its recipe says.",
            where=job.pipeline,
            got=f"{world} started, {job.recipe.processes} in the recipe",
            fix=f"torchrun --nproc-per-node {job.recipe.processes}",
        )
    gpus = torch.cuda.device_count() if job.device != "cpu" else 0
    if job.device == "cuda" and not gpus:
        raise TrainingError("There is no GPU.", where=job.pipeline, got="device=cuda", fix="use device=auto")
    device = f"cuda:{local % gpus}" if gpus else "cpu"
    # nccl refuses two ranks on one GPU; gloo does not mind. CPU tensors always go through gloo.
    own_gpu = gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    backend = "cpu:gloo,cuda:nccl" if gpus and own_gpu else "gloo"
    if gpus:
        torch.cuda.set_device(device)
    if world == 1:
        yield Place(0, 1, device, "none")
        return
    dist.init_process_group(backend)
    yield Place(dist.get_rank(), world, device, backend, local, int(os.environ.get("LOCAL_WORLD_SIZE", world)))
    dist.barrier()
    dist.destroy_process_group()


def settle(job: TrainingJob) -> None:
    """Make every random number and every sum repeatable."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what cuBLAS needs to be deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.set_num_threads(job.recipe.threads)
    seed(job.recipe.seed)


@dataclass(frozen=True)
class Prepared:
    """What training needs of the data, and of the model that it goes on from, if it does."""

    preprocessing: Preprocessing
    loader: Loader
    cuts: Cuts
    started: warm.Started


def prepare(job: TrainingJob, place: Place, find: plan.Find = plan.here) -> Prepared:
    """Read this rank's share, and fit the preprocessing together with the others or take over the parent's."""
    if job.warm is None:
        return _prepare(job, place, find, None, "")
    parent = warm.parent_of(job)
    if isinstance(parent, str):
        return _prepare(job, place, find, None, parent)
    try:
        return _prepare(replace(job, files=job.warm.files), place, find, parent, "")
    # Both are the same on every rank: all look at the same sums.
    except plan.TooFewRowsError as error:
        return _prepare(job, place, find, None, f"there is too little to go on with ({error.got})")
    except warm.Unsuitable as reason:
        return _prepare(job, place, find, None, str(reason))


def _prepare(
    job: TrainingJob, place: Place, find: plan.Find, parent: model_folder.LoadedModel | None, cold: str
) -> Prepared:
    groups, schema = plan.survey(job, place.rank, place.world, place.gather, find)
    rows = sum(group.labelled for group in groups)
    kinds = fitting.kinds(job, schema)
    mine = plan.share(rows, place.rank, place.world)
    plan.bring(groups, *mine)
    source = plan.read(job, groups, *mine)
    tables = list(source) if loader.fits(job, rows, place.world) else None
    partial = fitting.Partial(kinds)
    for table in source if tables is None else tables:
        partial.merge(fitting.summarize(job, kinds, table))
    parts = place.gather(partial)
    if parent is None:
        preprocessing, started = fitting.finish(job, parts), warm.Started(cold=cold)
    else:
        preprocessing, started = parent.preprocessing, warm.started(job, parent, parts)
    data = loader.make(job, groups, tables, preprocessing, place.rank, place.world, place.device)
    return Prepared(preprocessing, data, Cuts(rows, place.world, job.recipe.batch_size), started)


def distribute(module: nn.Module, place: Place, *, divided: bool, sums: SharedSums | None = None) -> nn.Module:
    """The module on its device, its gradients averaged over the ranks where there are several.

    Args:
        divided: whether each rank keeps but its share of the module (`sharding`).
        sums: averages gradients, of a module that is not divided; None leaves that to the backend.
    """
    if divided and place.world > 1:
        return sharding.shard(module, place)
    module = module.to(place.device)
    if place.world == 1:
        return module
    ids = [torch.device(place.device).index] if place.device != "cpu" else None
    # Rank 0's buffers go to all before each step, for which all wait, where training may change them: those that are
    # part of the state. What is not could not be gone on from and does not change.
    kept = module.state_dict().keys() & {name for name, _ in module.named_buffers()}
    model = DistributedDataParallel(
        module, device_ids=ids, gradient_as_bucket_view=True, forward_sync_buffers=bool(kept)
    )
    if sums is not None:
        model.register_comm_hook(None, sums.hook)
    return model


def run(
    job: TrainingJob,
    place: Place,
    report: Reporter | None,
    *,
    asked: preemption.Asked | None = None,
    find: plan.Find = plan.here,
) -> None:
    """Train, and write the model folder on rank 0.

    Args:
        find: finds the files to learn from.
        asked: set when this process is to end: it then takes a checkpoint and raises PreemptedError.
    """
    begun = time.perf_counter()
    data = prepare(job, place, find)
    load_seconds = time.perf_counter() - begun

    seed(job.recipe.seed)
    inputs = data.preprocessing.inputs()
    module = data.started.module or model_folder.build(job.recipe.model, inputs, job.recipe.hyperparameters)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TrainingError("The model has no parameter that can learn.", where=job.recipe.model)
    if job.recipe.compile:
        compile_module(module, device=place.device, where=job.recipe.model)
    sums = None if job.recipe.shard else shared_sums(place)
    model = distribute(module, place, divided=job.recipe.shard, sums=sums)
    seed_by(job.recipe.seed, "rank", place.rank)  # dropout differs between ranks
    if report:
        if job.warm:
            report.line(f"{job.pipeline}: {data.started.describe(job.warm)}")
        report.line(
            f"{job.pipeline}: {data.cuts.rows:,} rows in {load_seconds:.1f} s, "
            f"{place.world} processes on {place.device.split(':')[0]}, rows in {data.loader.mode}, "
            f"{data.cuts.steps} steps an epoch, {sum(p.numel() for p in module.parameters()):,} parameters"
        )
    topology = _topology(place, data.loader.mode, sums)
    say = report.line if report else lambda line: None
    checkpoints = Checkpoints(job, place, topology, say, asked or preemption.Asked())
    try:
        epochs = loop.train(
            model,
            data.loader,
            data.cuts,
            task=job.task,
            recipe=job.recipe,
            rank=place.rank,
            device=place.device,
            report=report.progress if report else lambda values: None,
            progress_seconds=job.progress_seconds,
            checkpoints=checkpoints,
        )
    finally:
        checkpoints.finish()
    used = _resources(place, time.perf_counter() - begun)
    resources = place.gather({**used, "parameters": sharding.held(module)})
    weights = sharding.whole(module) if job.recipe.shard and place.world > 1 else {}
    if place.rank == 0:
        history = {
            "epochs": [asdict(epoch) for epoch in epochs],
            "rows": data.cuts.rows,
            "load_seconds": load_seconds,
            "seconds": time.perf_counter() - begun,
            "resources": resources,
            "checkpoints": {"taken": checkpoints.taken, "held_up_seconds": checkpoints.held_up},
            "warm_start": data.started.to_record(),
            "topology": topology,
            "resumed_on": checkpoints.resumed_on,
        }
        if weights:
            module = model_folder.build(job.recipe.model, inputs, job.recipe.hyperparameters)
            module.load_state_dict(weights)
        folder = model_folder.write(job, module, data.preprocessing, history, warm=data.started.module is not None)
        if report:
            report.line(f"{job.pipeline}: model written to {folder}")
    checkpoints.remove()


def _topology(place: Place, rows_in: str, sums: SharedSums | None) -> dict[str, Any]:
    """What the order of sums depends on, and so the bytes. Of two ranks there is but one order."""
    return {
        "processes": place.world,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if place.device != "cpu" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "backend": place.backend if sums is None or place.world == 2 else "shared memory",
        "rows_in": rows_in,
        "torch": torch.__version__,
    }


def _resources(place: Place, seconds: float) -> dict[str, float]:
    """What this rank has used since the process began: after a restart, since that. A GPU is used all the time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    gpu = torch.cuda.max_memory_allocated() / 2**20 if place.device != "cpu" else 0.0
    return {
        "rank": place.rank,
        "peak_memory_mib": round(usage.ru_maxrss / unit, 1),
        "peak_gpu_memory_mib": round(gpu, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "gpu_seconds": round(seconds if place.device != "cpu" else 0.0, 2),
    }


@record
def main(find: plan.Find = plan.here) -> None:
    """The command line; and where the files to learn from are, when they are not where the specification says."""
    parser = argparse.ArgumentParser(description="One rank of a training job; started by torchrun.")
    parser.add_argument("spec", type=Path, help="JSON file of a TrainingJob")
    parser.add_argument("--parent", type=int, help="process id to die with")
    options = parser.parse_args()
    if options.parent is not None:
        watchdog.follow(options.parent, kernel=True)
    job = TrainingJob.from_json(options.spec.read_bytes())
    if not job.output:
        raise TrainingError("The job has no output folder.", where=options.spec, fix="set `output`")
    asked = preemption.listen()
    said.mark(int(os.environ.get("RANK", "0")))
    settle(job)
    gc.freeze()
    gc.enable()
    try:
        with joined(job) as place:
            sys.excepthook = said.say  # in place of the one that torch put there
            if place.rank == 0:
                with reporter() as report:
                    run(job, place, report, asked=asked, find=find)
            else:
                run(job, place, None, asked=asked, find=find)
    except preemption.PreemptedError as error:
        sys.stderr.write(f"{job.pipeline}: {error}\n")
        sys.exit(preemption.PREEMPTED)
    except SystemExit as error:
        raise TrainingError(
            "The model's code, or what it calls, ended the process.",
            where=job.recipe.model,
            got=f"sys.exit({'' if error.code is None else repr(error.code)})",
            fix="raise an exception that says why",
        ) from error


if __name__ == "__main__":
    leave_after(main)
