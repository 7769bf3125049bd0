"""A toy pipeline and a really trained model of it, small enough to train in seconds."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from ml_platform.pipeline import Features, NamedBatches, Pipeline, Recipe, Source, Split
from ml_platform.training.config import TrainingJob
from ml_platform.training.scoring import Scorer

LABELS = ("late", "grade", "price")
"""The label of a binary, a multi-class and a regression task."""


def features(spark, frames, references):
    """The toy's feature function; never run here. Its labels are named in `LABELS`."""
    return frames["toys"]


def rows(count: int, seed: int = 0) -> pl.DataFrame:
    """Feature rows: a number with NaN, whole numbers, text with nulls, whole-number categories; three labels."""
    random = np.random.default_rng(seed)
    size = np.where(random.random(count) < 0.1, np.nan, random.standard_normal(count))
    maker = random.choice(["x", "y", "z"], count)
    signal = np.nan_to_num(size) + (maker == "x") + 0.5 * random.standard_normal(count)
    return pl.DataFrame(
        {
            "id": np.arange(count),
            "size": size,
            "age": random.integers(0, 50, count),
            "maker": pl.Series(maker.tolist()).replace({"z": None}),
            "place": random.integers(0, 9, count),
            "late": (signal > 0.8).astype(int),
            "grade": np.select([signal > 1.0, signal > 0.0], ["good", "fair"], "poor"),
            "price": 10 * signal,
        }
    )


def declare(task: str = "binary", label: str = "late", name: str = "toy") -> Pipeline:
    return Pipeline(
        name=name,
        description="Which toys come late.",
        batches=NamedBatches(),
        sources=(Source(name="toys", schema=f"{__name__}:LABELS"),),
        features=Features(
            function=f"{__name__}:features", numeric=("size", "age"), categorical=("maker", "place"), keys=("id",)
        ),
        label=label,
        task=task,  # type: ignore[arg-type]
        recipe=Recipe(model="ml_platform.training.models:mlp", processes=1, epochs=2, batch_size=256),
        split=Split.rolling(holdout=1),
    )


TOY = declare()


@dataclass(frozen=True)
class Trained:
    """A model folder and what it takes."""

    pipeline: Pipeline
    folder: Path

    @property
    def scorer(self) -> Scorer:
        return Scorer.load(self.folder)

    @property
    def example(self) -> pa.Table:
        return rows(20, 3).to_arrow()

    def frame(self, count: int = 200) -> pd.DataFrame:
        """Raw feature rows as pandas has them, numbers as doubles, as the feature job writes them."""
        frame: pd.DataFrame = rows(count, 11).select(self.pipeline.features.columns).to_pandas()
        return frame.astype(dict.fromkeys(self.pipeline.features.numeric, "float64"))


def toy(folder: Path) -> Trained:
    """The toy's model, trained once for all tests that share `folder`."""
    return Trained(TOY, folder / "model") if (folder / "model").exists() else train(TOY, folder)


def train(pipeline: Pipeline, folder: Path, seed: int = 0, *, cast: bool = False) -> Trained:
    """Train in a process of its own, as the platform does; `cast` rows are what its feature job makes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    made, features = rows(2000, seed), pipeline.features
    if cast:
        made = made.cast(
            {**dict.fromkeys(features.numeric, pl.Float64), **dict.fromkeys(features.categorical, pl.String)}
        )
    made.write_parquet(folder / "rows.parquet")
    job = TrainingJob(
        pipeline=pipeline.name,
        task=pipeline.task,
        label=pipeline.label,
        numeric=pipeline.features.numeric,
        categorical=pipeline.features.categorical,
        recipe=pipeline.recipe,
        files=(str(folder / "rows.parquet"),),
        output=str(folder / "model"),
        device="cpu",
    )
    (folder / "job.json").write_text(job.to_json())
    command = [sys.executable, "-m", "ml_platform.training.job", str(folder / "job.json")]
    subprocess.run(command, check=True, capture_output=True)
    return Trained(pipeline, folder / "model")
