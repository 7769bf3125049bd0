"""Quality on real flights: our network beside gradient boosting on the same features.

Trained on January to May 2013, tested on June: the declared pipeline, its feature job, its training job through the
local launcher, and `evaluation.baseline`. Wanted: area under the ROC curve of the network >= 0.72, and not more than
0.02 below that of scikit-learn's HistGradientBoostingClassifier. With --seeds, how much of it is luck.

    python -m benchmarks.quality [--seeds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import common
from ml_platform.evaluation.baseline import fit_and_score
from ml_platform.evaluation.metrics import compute as metrics_of
from ml_platform.launch.local import LocalLauncher
from ml_platform.launch.protocol import run
from ml_platform.pipelines.nyc_flights.data import sample
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.stages.feature_job import compute
from ml_platform.stages.spark import builder, spark_config, stop
from ml_platform.training.config import TrainingJob
from ml_platform.training.scoring import Scorer

METRICS = ("roc_auc", "average_precision", "log_loss")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="train this many times, from the recipe's seed on")
    options = parser.parse_args()
    print(common.header("Quality: late flights, January to May against June", libraries=("torch", "scikit-learn")))
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options.seeds)


def measure(folder: Path, seeds: int) -> None:
    """Compute features, train, compare."""
    files = features(folder)
    train, holdout = ([path for day in days for path in files[day]] for days in PIPELINE.split.divide(list(files)))
    table = common.Table(["model", *METRICS, "seconds"])
    network = []
    for seed in range(PIPELINE.recipe.seed, PIPELINE.recipe.seed + seeds):
        begun = time.perf_counter()
        found = train_network(folder, train, holdout, seed)
        network.append(found["roc_auc"])
        table.add(f"network, seed {seed}", *(found[m] for m in METRICS), time.perf_counter() - begun)
    boosting = fit_and_score(PIPELINE, train, holdout, seed=PIPELINE.recipe.seed)
    table.add("gradient boosting", *(boosting.metrics[m] for m in METRICS), boosting.seconds)
    print(table)
    if seeds > 1:
        print(f"\nroc_auc of the network over seeds: {min(network):.4f} to {max(network):.4f}")
    middle = statistics.median(network)
    print(f"\nnetwork                       {common.Wish(middle, at_least=0.72)}")
    print(f"gradient boosting - network   {common.Wish(boosting.metrics['roc_auc'] - middle, at_most=0.02)}")


def features(folder: Path) -> dict[str, list[Path]]:
    """The feature files of every day."""
    inputs: dict[str, dict[str, Path]] = {}
    for feed, day, table in sample():
        path = folder / f"{feed}-{day}"
        pq.write_table(table, path)
        inputs.setdefault(day or "", {})[feed] = path
    references = inputs.pop("")
    session = builder(spark_config(scratch=folder / "spark")).getOrCreate()
    files = compute(session, PIPELINE, inputs, history={}, references=references, out=folder / "features")
    stop(session)
    return files


def train_network(folder: Path, train: Sequence[Path], holdout: Sequence[Path], seed: int) -> dict[str, float]:
    """Train by the recipe with another seed; the metrics on the labelled rows of the holdout."""
    job = TrainingJob(
        pipeline=PIPELINE.name,
        task=PIPELINE.task,
        label=PIPELINE.label,
        numeric=PIPELINE.features.numeric,
        categorical=PIPELINE.features.categorical,
        recipe=replace(PIPELINE.recipe, seed=seed),
        files=tuple(str(path) for path in train),
        device="cpu",
    )
    result = run(LocalLauncher(folder / "jobs"), name=f"seed-{seed}", job=job)
    rows = pa.concat_tables([pq.ParquetFile(path).read() for path in holdout])
    rows = rows.filter(pc.is_valid(rows[PIPELINE.label]))
    scores = Scorer.load(result.folder).score(rows)
    return metrics_of(PIPELINE.task, rows[PIPELINE.label].to_numpy(), scores, (0.0, 1.0))


if __name__ == "__main__":
    main()
