"""Rows a second of our training loop, beside a bare PyTorch loop over tensors and torch's DataLoader over rows.

All variants train the same model with the same batch size in the same processes, under torchrun and
DistributedDataParallel, an epoch each in turns. The bare loop does what one would write by hand and nothing more:
DistributedDataParallel as it is, over gloo, no schedule, no check of the loss, no report, no deterministic
algorithms. The DataLoader has two row-wise Datasets: one over the features' table, encoding a row when it is asked
for, and one over tensors that are encoded already, the best that such a Dataset can be; there the model's own time,
which all share, bounds the ratio. Wanted: ours / bare >= 0.9, ours / DataLoader >= 5. Streaming, which reads Parquet
anew in each epoch, and one process against two, for information.

    python -m benchmarks.training [--rows N] [--rounds N] [--batch-size N]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from benchmarks import common
from ml_platform.pipeline import Recipe
from ml_platform.training import job as training
from ml_platform.training import loop, model_folder
from ml_platform.training.config import TrainingJob
from ml_platform.training.loader import InMemory
from ml_platform.training.preprocessing import Preprocessing
from ml_platform.training.shared_memory import shared_sums

NUMERIC = tuple(f"n{i}" for i in range(15))
CARDINALITIES = {"carrier": 16, "origin": 3, "dest": 105, "tail": 4000, "hour": 24, "month": 12, "weekday": 7}
CARDINALITIES |= {"manufacturer": 35, "engine": 6, "holiday": 2}
TENSOR_ROWS, TABLE_ROWS = 20_000, 2_000  # of the DataLoaders' epochs: they are too slow for all rows


def main() -> None:
    """The command line; with --rank, one process of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--batch-size", type=int, default=1024, help="over all processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        measure(TrainingJob.from_json(options.rank.read_bytes()), options.rounds)
        return
    print(common.header("Training: rows a second", libraries=("torch", "pyarrow", "numpy")))
    print(f"{options.rows:,} rows, {len(NUMERIC)} numeric and {len(CARDINALITIES)} categorical features, ", end="")
    print(f"batch size {options.batch_size}, one thread a process, an epoch a run\n")
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder), options.rows)
        found = {n: start(Path(folder), files, n, options.batch_size, options.rounds) for n in (2, 1)}
    for processes, values in found.items():
        print(f"## {processes} process{'es' if processes > 1 else ''}\n")
        print(common.ratios(values, unit="rows/s", against="bare loop"), "\n")
    middle = {n: {name: statistics.median(v) for name, v in values.items()} for n, values in found.items()}
    ours = middle[2]["ours"]
    table, tensors = (
        max(speed for name, speed in middle[2].items() if name.startswith(f"DataLoader over {kind}"))
        for kind in ("a table", "tensors")
    )
    alone = middle[2]["loading alone, ours"] / middle[2]["loading alone, DataLoader over tensors"]
    wishes = {
        "ours / bare loop": common.Wish(ours / middle[2]["bare loop"], at_least=0.9),
        "ours / bare loop with a fused optimizer, as ours has": common.Wish(
            ours / middle[2]["bare loop, fused AdamW"], at_least=0.9
        ),
        "ours / DataLoader over the rows of a table": common.Wish(ours / table, at_least=5),
        "ours / DataLoader over rows of encoded tensors": common.Wish(ours / tensors, at_least=5),
    }
    for name, wish in wishes.items():
        print(f"{name}: {wish}")
    print(f"loading alone, without the model's time, ours / DataLoader over rows of encoded tensors: {alone:.0f}")
    print(f"ours, 2 processes / 1 process: {ours / middle[1]['ours']:.2f}")
    print(f"bare loop, 2 processes / 1 process: {middle[2]['bare loop'] / middle[1]['bare loop']:.2f}")
    sys.exit(not all(wish.granted for wish in wishes.values()))


def make(folder: Path, rows: int, days: int = 181) -> list[str]:
    """Write made data, a file a day."""
    random = np.random.default_rng(0)
    files = []
    for day, size in enumerate(np.diff(np.linspace(0, rows, days + 1).astype(int))):
        columns: dict[str, Any] = {}
        for name in NUMERIC:
            columns[name] = pa.array(random.normal(size=size).astype(np.float32), mask=random.random(size) < 0.01)
        for i, (name, cardinality) in enumerate(CARDINALITIES.items()):
            codes = random.integers(0, cardinality, size)
            columns[name] = codes if i % 3 == 2 else np.char.mod(f"{name}-%d", codes)
        columns["late"] = random.random(size) < 0.25
        files.append(str(folder / f"{day:03}.parquet"))
        pq.write_table(pa.table(columns), files[-1])
    return files


def job_on(files: list[str], recipe: Recipe) -> TrainingJob:
    """A job on files that `make` has written, on the CPU."""
    return TrainingJob(
        pipeline="benchmark",
        task="binary",
        label="late",
        numeric=NUMERIC,
        categorical=tuple(CARDINALITIES),
        recipe=recipe,
        files=tuple(files),
        device="cpu",
    )


def start(folder: Path, files: list[str], processes: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Run the processes of the benchmark; rank 0 prints what it found as its last line."""
    recipe = Recipe(
        model="ml_platform.training.models:mlp", batch_size=batch_size, processes=processes, epochs=1, threads=1
    )
    job = job_on(files, recipe)
    spec = folder / f"{processes}.json"
    spec.write_text(job.to_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "benchmarks.training", "--rank", str(spec), "--rounds", str(rounds)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, list[float]] = json.loads(output.splitlines()[-1])
    return found


def measure(job: TrainingJob, rounds: int) -> None:
    """One rank: build every variant, and let them take turns."""
    training.settle(job)
    with training.joined(job) as place:
        memory = training.prepare(job, place)
        streaming = training.prepare(replace(job, recipe=replace(job.recipe, memory_mib=8)), place)
        assert (memory.loader.mode, streaming.loader.mode) == ("memory", "streaming")
        assert isinstance(memory.loader, InMemory)
        rows = memory.loader._rows
        x, c, y = rows.numeric, rows.categorical.long(), rows.target
        preprocessing = memory.preprocessing
        inputs, size = preprocessing.inputs(), job.recipe.batch_size // place.world

        sums = shared_sums(place)

        def model() -> nn.Module:
            return model_folder.build(job.recipe.model, inputs, {})

        def ours(data: training.Prepared) -> Callable[[], float]:
            module = training.distribute(model(), place, divided=False, sums=sums)

            def epoch() -> float:
                results = loop.train(
                    module,
                    data.loader,
                    data.cuts,
                    task=job.task,
                    recipe=job.recipe,
                    rank=place.rank,
                    device=place.device,
                    report=lambda values: None,
                    progress_seconds=1.0,
                )
                assert len(results) == 1
                return float(data.cuts.rows)

            return lambda: speed(epoch, deterministic=True)

        def by_hand(
            batches: Callable[[], Iterable[tuple[Tensor, ...]]], *, fused: bool | None = None
        ) -> Callable[[], float]:
            module = DistributedDataParallel(model()) if place.world > 1 else model()
            optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=fused)

            def epoch() -> float:
                module.train()
                count = 0
                for numeric, categorical, target in batches():
                    loss = nn.functional.binary_cross_entropy_with_logits(module(numeric, categorical), target)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    count += len(target)
                return float(count * place.world)

            return lambda: speed(epoch, deterministic=False)

        def indexed() -> Iterable[tuple[Tensor, ...]]:
            order = torch.randperm(len(y))
            for start in range(0, len(y), size):
                index = order[start : start + size]
                yield x[index], c[index], y[index]

        def speed(epoch: Callable[[], float], *, deterministic: bool) -> float:
            torch.use_deterministic_algorithms(deterministic)
            if place.world > 1:
                dist.barrier()
            done = [0.0]
            taken = common.seconds(lambda: done.append(epoch()))
            return done[-1] / taken

        def row_wise(rows: Dataset[tuple[Tensor, ...]], workers: int) -> DataLoader[tuple[Tensor, ...]]:
            # Each rank has rows of its own, so no sampler that divides them.
            return DataLoader(rows, size, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

        encoded = TensorRows(x[:TENSOR_ROWS], c[:TENSOR_ROWS], y[:TENSOR_ROWS])
        raw = TableRows(pa.concat_tables(map(pq.read_table, job.files)).slice(0, TABLE_ROWS), preprocessing)
        loaders = {
            "DataLoader over tensors": row_wise(encoded, 0),
            "DataLoader over tensors, 1 worker": row_wise(encoded, 1),
            "DataLoader over a table": row_wise(raw, 0),
            "DataLoader over a table, 1 worker": row_wise(raw, 1),
        }

        def alone(batches: Callable[[], Iterable[object]], rows: int) -> Callable[[], float]:
            def epoch() -> float:
                for _ in batches():
                    pass
                return float(rows * place.world)

            return lambda: speed(epoch, deterministic=False)

        found = common.alternate(
            {
                "ours": ours(memory),
                "bare loop": by_hand(indexed),
                "bare loop, fused AdamW": by_hand(indexed, fused=True),
                "ours, streaming": ours(streaming),
                **{name: by_hand(lambda name=name: loaders[name]) for name in loaders},  # type: ignore[misc]
                "loading alone, ours": alone(lambda: memory.loader.epoch(1), len(y)),
                "loading alone, DataLoader over tensors": alone(
                    lambda: loaders["DataLoader over tensors"], len(encoded)
                ),
            },
            rounds=rounds,
        )
        if place.rank == 0:
            print(json.dumps(found), flush=True)


class TensorRows(Dataset[tuple[Tensor, ...]]):
    """A row at a time of tensors that are encoded already: the least that a row-wise Dataset can do."""

    def __init__(self, *columns: Tensor) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self._columns)


class TableRows(Dataset[tuple[Tensor, ...]]):
    """A row at a time of the features as they are, encoded when asked for: what a first version has."""

    def __init__(self, table: pa.Table, preprocessing: Preprocessing) -> None:
        self._frame, self._preprocessing = table.to_pandas(), preprocessing
        self._codes = [{value: i for i, value in enumerate(c.values, 1)} for c in preprocessing.categorical]

    def __len__(self) -> int:
        return len(self._frame)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        row, fitted = self._frame.iloc[index], self._preprocessing
        present = [math.isfinite(row[f.name]) for f in fitted.numeric]
        numbers = [(row[f.name] - f.mean) / f.std if ok else 0.0 for f, ok in zip(fitted.numeric, present, strict=True)]
        numbers += [float(not ok) for f, ok in zip(fitted.numeric, present, strict=True) if f.indicator]
        codes = [known.get(row[c.name], 0) for c, known in zip(fitted.categorical, self._codes, strict=True)]
        return torch.tensor(numbers), torch.tensor(codes), torch.tensor([float(row["late"])])


if __name__ == "__main__":
    main()
