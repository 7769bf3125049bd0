"""Looking at a model: every interval, slice, batch and feature, the champion, pictures; beside them a loop.

Made data of the flights' shape: 28,000 held-out rows of 30 batches, two classes, 16 numbers and seven categorical
columns with as many values as the flights' have; the model whose features are shuffled is a real, untrained network of
the flights' size. Ours draws the rows 1,000 times for intervals and for the champion, and 200 times in each slice and
batch; the loop draws rows and calls scikit-learn for each draw, of which only a few are made, and the time of all is
extrapolated. Wanted: the intervals of all metrics over 30,000 rows in under 2 s, everything together under 20 s.

    python -m benchmarks.evaluation [--rows N] [--draws N] [--rounds N]
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import common
from ml_platform.evaluation.calibration import calibration
from ml_platform.evaluation.champion import compare
from ml_platform.evaluation.constant import constant
from ml_platform.evaluation.declaration import ModelGate, Threshold
from ml_platform.evaluation.figures import figures
from ml_platform.evaluation.gallery import pictures
from ml_platform.evaluation.importance import importance
from ml_platform.evaluation.intervals import Answers, intervals
from ml_platform.evaluation.over_time import over_time
from ml_platform.evaluation.search import search
from ml_platform.evaluation.slices import slices
from ml_platform.evaluation.threshold import threshold
from ml_platform.training.model_folder import LoadedModel, build
from ml_platform.training.preprocessing import Categorical, Label, Numeric, Preprocessing
from ml_platform.training.scoring import Scorer

CLASSES = (0.0, 1.0)
VALUES = {"dep_hour": 19, "carrier": 16, "origin": 3, "dest": 100, "manufacturer": 30, "engine": 6, "plane_type": 3}
NUMBERS = tuple(f"number_{place}" for place in range(16))
BATCHES = 30
METRIC = "roc_auc"
NAIVE_DRAWS = 10
FOR_INTERVALS = 30_000


def made(rows: int, noise: float) -> Answers:
    """A model's answers; every model answers for the same rows."""
    random = np.random.default_rng(0)
    odds = random.normal(-1.4, 1.2, rows)
    target = (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    scores = 1 / (1 + np.exp(-odds - noise * random.normal(size=rows)))
    return Answers(task="binary", target=target, scores=scores, classes=CLASSES)


def categories(rows: int) -> dict[str, pa.ChunkedArray]:
    """Categories, some frequent and many rare."""
    random = np.random.default_rng(1)
    return {
        name: pa.chunked_array([pa.array(np.minimum(random.geometric(2 / count, rows), count).astype(str))])
        for name, count in VALUES.items()
    }


def numbers(rows: int) -> dict[str, pa.ChunkedArray]:
    """Numbers, of which a few are missing."""
    random = np.random.default_rng(2)
    missing = random.random((len(NUMBERS), rows)) < 0.02
    return {
        name: pa.chunked_array([pa.array(random.normal(size=rows), mask=mask)])
        for name, mask in zip(NUMBERS, missing, strict=True)
    }


def network(by: dict[str, pa.ChunkedArray]) -> Scorer:
    """A network of the flights' size with the weights that it begins with."""
    preprocessing = Preprocessing(
        task="binary",
        numeric=tuple(Numeric(name, 0.0, 1.0, True) for name in NUMBERS),
        categorical=tuple(Categorical(n, "string", tuple(sorted(c.unique().to_pylist()))) for n, c in by.items()),
        label=Label("late", "integer", CLASSES),
    )
    module = build("ml_platform.training.models:mlp", preprocessing.inputs(), {"hidden": [128, 64], "embedding": 8})
    return Scorer(LoadedModel(record={}, preprocessing=preprocessing, module=module.eval()))


def naive(answers: Answers, draws: int) -> float:
    """Seconds that so many draws would take in a loop."""
    random = np.random.default_rng(0)

    def loop() -> None:
        for _ in range(NAIVE_DRAWS):
            rows = random.integers(0, len(answers.target), len(answers.target))
            figures(answers.of(rows), Threshold())

    return common.seconds(loop) / NAIVE_DRAWS * draws


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=28_000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(common.header("Looking at a model", libraries=("numpy", "scikit-learn", "pyarrow", "matplotlib")))
    gate, draws = ModelGate(draws=options.draws), options.draws
    model, champion = made(options.rows, 0.5), made(options.rows, 0.4)
    many, by, with_numbers = made(FOR_INTERVALS, 0.5), categories(options.rows), numbers(options.rows)
    scorer, rows = network(by), pa.table({**with_numbers, **by})
    days = dict.fromkeys(map(str, range(BATCHES)), options.rows // BATCHES)
    overall = intervals(model, draws=draws)[METRIC]
    bodies: dict[str, Callable[[], Any]] = {
        "figures of three": lambda: [figures(each, gate.threshold) for each in (model, champion, model)],
        "intervals": lambda: intervals(model, draws=draws),
        "threshold": lambda: threshold(model, gate.threshold, draws=draws),
        "calibration": lambda: calibration(model, draws=draws),
        "constant": lambda: compare(model, constant(model, model.target), METRIC, gate),
        "slices": lambda: slices(model, by, metric=METRIC, overall=overall, gate=gate, baseline=champion),
        "search": lambda: search(
            model, categorical=by, numeric=with_numbers, metric=METRIC, gate=gate, baseline=champion
        ),
        "over time": lambda: over_time(model, days, metric=METRIC, gate=gate, baseline=champion),
        "importance": lambda: importance(scorer, rows, model, metric=METRIC, most_rows=gate.importance_rows),
        "champion": lambda: compare(model, champion, METRIC, gate),
    }
    found = {name: body() for name, body in bodies.items()}
    facts = {
        "metrics": found["figures of three"][0],
        "threshold": found["threshold"].record(),
        "slices": [each.record() for each in found["slices"]],
        "found_slices": {"slices": [each.record() for each in found["search"].slices]},
        "over_time": found["over time"],
        "importance": [each.record() for each in found["importance"]],
    }
    bodies["pictures"] = lambda: pictures({"model": model, "baseline": champion}, facts, METRIC)
    told = f"{options.rows:,} rows, {draws:,} draws, {len(found['slices'])} slices of {len(by)} columns"
    print(f"{told}, {found['search'].looks:,} searched, {len(rows.column_names)} features shuffled\n")
    everything = list(bodies)
    bodies["intervals, 30,000 rows"] = lambda: (
        intervals(many, draws=draws),
        threshold(many, gate.threshold, draws=draws),
        calibration(many, draws=draws),
    )
    variants: dict[str, Callable[[], float]] = {n: functools.partial(common.seconds, b) for n, b in bodies.items()}
    variants["loop, 30,000 rows"] = lambda: naive(many, options.draws)
    times = common.alternate(variants, rounds=options.rounds)
    print(common.ratios(times, unit="s", against="intervals, 30,000 rows"))
    print(f"\nThe loop made {NAIVE_DRAWS} draws; its time is that of one draw times {options.draws:,}.")
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(f"intervals, seconds   {common.Wish(middle['intervals, 30,000 rows'], at_most=2)}")
    print(f"all, seconds         {common.Wish(sum(middle[name] for name in everything), at_most=20)}")


if __name__ == "__main__":
    main()
