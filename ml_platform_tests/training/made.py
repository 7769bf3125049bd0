"""Made training data, and jobs over it. `row` numbers every row, so that a test can tell which rows were seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_platform.pipeline import Recipe
from ml_platform.training.config import TrainingJob

MLP = "ml_platform.training.models:mlp"


def files(folder: Path, *, batches: int = 4, rows: int = 500, row_group: int = 150, seed: int = 0) -> list[str]:
    """Write files with labels `late` (binary), `kind` (three classes) and `amount` (regression); some are missing."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for batch in range(batches):
        x, z = random.normal(10, 3, rows), random.normal(size=rows)
        place = random.choice(["EWR", "JFK", "LGA"], rows)
        month = random.integers(1, 13, rows)
        signal = (x - 10) / 3 + (place == "JFK") + 0.3 * random.normal(size=rows)
        absent = random.random(rows) < 0.1
        table = pa.table(
            {
                "key": np.arange(rows),
                "row": np.arange(batch * rows, (batch + 1) * rows).astype(np.int32),
                "x": x,
                "z": pa.array(z, mask=random.random(rows) < 0.2),
                "place": pa.array(place, mask=random.random(rows) < 0.05),
                "month": pa.array(month),
                "late": pa.array(signal > 0.5, mask=absent),
                "kind": pa.array(np.where(signal < 0, "low", np.where(signal < 1, "mid", "top")), mask=absent),
                "amount": pa.array(1000 + 50 * signal, mask=absent),
            }
        )
        path = folder / f"batch-{batch}.parquet"
        pq.write_table(table, path, row_group_size=row_group)
        paths.append(str(path))
    return paths


def without(path: str, to: Path, *, label: str, value: str) -> None:
    """Write a file again, without the rows whose label has that value."""
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.not_equal(table[label], value)), to)


def job(paths: list[str], output: Path | str = "", **changes: Any) -> TrainingJob:
    """A small job; `changes` are fields of the job or of its recipe."""
    recipe: dict[str, Any] = {"model": MLP, "hyperparameters": {"hidden": [16]}, "batch_size": 128, "epochs": 2}
    recipe["learning_rate"] = 0.01
    fields: dict[str, Any] = {
        "pipeline": "made",
        "task": "binary",
        "label": "late",
        "numeric": ("x", "z"),
        "categorical": ("place", "month"),
        "files": paths,
        "output": str(output),
        "device": "cpu",
    }
    for name, value in changes.items():
        (recipe if name in Recipe.__dataclass_fields__ else fields)[name] = value
    return TrainingJob(recipe=recipe, **fields)  # type: ignore[arg-type]


def train(job: TrainingJob, listener: Any = None) -> Path:
    """Train in this process alone. Returns the model folder."""
    from ml_platform.training import job as training
    from ml_platform.training.place import Place
    from ml_platform.training.seeding import seed

    seed(job.recipe.seed)
    training.run(job, Place(0, 1, "cpu", "none"), listener)
    return Path(job.output)
