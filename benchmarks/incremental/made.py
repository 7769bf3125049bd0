"""A small pipeline with as many batches as one likes, written into a folder of its own and landed.

Its batches are CSV files of a few rows. What is declared is real: a pandera schema, PySpark features that import a
helper, a model that is trained; only everything is small. The model's weights change with its epochs, and what it says
does not.
"""

from __future__ import annotations

import datetime as dt
import importlib
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline

NAME = "made"
FIRST = dt.date(2001, 1, 1)
ROWS = 12

FILES = {
    "__init__.py": '"""A pipeline made for a benchmark."""\n',
    "helper.py": '''"""What features lean on."""


def offset() -> float:
    """Something to edit."""
    return 0.0
''',
    "features.py": '''"""Twice the number, and whether it is large."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from made.helper import offset


def build(spark: SparkSession, frames: Mapping[str, DataFrame], references: Mapping[str, DataFrame]) -> DataFrame:
    """One row a row."""
    rows = frames["numbers"]
    doubled = F.col("number") * 2 + F.lit(offset())
    return rows.select("batch", "row", "other", doubled.alias("doubled"), (F.col("number") > 500).alias("large"))
''',
    "model.py": '''"""A model whose answer is its first input, however long it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ml_platform.training.model_inputs import ModelInputs


class First(nn.Module):
    """Has a weight that decays with every step, and that nothing depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Logits (rows, 1)."""
        return numeric[:, :1] + 0 * self.weight


def first(inputs: ModelInputs) -> nn.Module:
    """Build it."""
    return First()
''',
    "schema.py": '''"""What a good batch looks like."""

import pandera.polars as pa


class Numbers(pa.DataFrameModel):
    """One row a number."""

    row: int = pa.Field(ge=0, unique=True)
    number: int = pa.Field(ge=0, le=1000)
    other: int = pa.Field(ge=0, le=9)
''',
    "pipeline.py": '''"""Is a number large? Learned from batches of numbers."""

from ml_platform.pipeline import DailyBatches, Features, MetricGate, Pipeline, Recipe, Source, Split

PIPELINE = Pipeline(
    name="made",
    description="Made for a benchmark. A batch is a day; a row is a number.",
    batches=DailyBatches(start="2001-01-01", end="2099-12-31"),
    sources=(Source(name="numbers", schema="made.schema:Numbers", format="csv"),),
    features=Features(
        function="made.features:build", keys=("row",), numeric=("doubled",), categorical=("other",)
    ),
    label="large",
    task="binary",
    recipe=Recipe(
        model="made.model:first",
        learning_rate=0.05,
        epochs=3,
        batch_size=16,
        processes=1,
    ),
    split=Split.rolling(holdout=2),
    gates=(MetricGate(metric="roc_auc", at_least=0.0),),
    leakage_limit=1.0,
)
''',
}


def write(folder: Path) -> None:
    """Write the package `made` into a folder, which is then to be on sys.path."""
    package = folder / NAME
    package.mkdir(parents=True)
    for name, text in FILES.items():
        (package / name).write_text(text)


def environment(folder: Path, home: Path) -> dict[str, str]:
    """The environment of a process that knows the package and keeps everything in `home`."""
    return {
        **os.environ,
        "PYTHONPATH": str(folder),
        "ML_PLATFORM_PIPELINES": NAME,
        "ML_PLATFORM_HOME": str(home),
        "ML_PLATFORM_SETTLE_SECONDS": "0",
    }


def load(folder: Path) -> Pipeline:
    """The pipeline, in this process."""
    sys.path.insert(0, str(folder))
    pipeline: Pipeline = importlib.import_module(f"{NAME}.pipeline").PIPELINE
    return pipeline


def days(count: int) -> list[str]:
    """Names of as many batches."""
    return [(FIRST + dt.timedelta(days=number)).isoformat() for number in range(count)]


def land(landing: Path, batches: Iterable[str]) -> None:
    """Put a file for each batch where data lands."""
    folder = landing / NAME / "numbers"
    folder.mkdir(parents=True, exist_ok=True)
    for batch in batches:
        (folder / f"{batch}.csv").write_text(rows(batch))


def rows(seed: str) -> str:
    """The text of a batch, the same for the same seed."""
    made = random.Random(seed)
    lines = [f"{number},{made.randrange(1001)},{made.randrange(10)}" for number in range(ROWS)]
    return "\n".join(["row,number,other", *lines, ""])
