"""Six stages of six small batches: epochs 3 to 5 and back, the feature code edited, a helper that it imports edited.

Which bodies run after each. What others do with as many tiny stages was measured once, whole processes, on one
machine (November 2026), and is printed beside it.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import common
from benchmarks.incremental import made, processes
from benchmarks.incremental.report import Row, equal
from benchmarks.incremental.workplace import Workplace

BATCHES = 6
BELOW = {"training_set", "baseline", "trained_model", "evaluation", "registered_model"}
FEATURES = {"features"} | BELOW
MODEL = {"trained_model", "evaluation"}
STEPS = (
    ("nothing", None, set()),
    ("epochs 3 to 5", ("pipeline.py", "epochs=3", "epochs=5"), MODEL),
    ("back to 3", ("pipeline.py", "epochs=5", "epochs=3"), set()),
    ("feature code", ("features.py", "* 2 +", "* 3 +"), FEATURES),
    ("imported helper", ("helper.py", "return 0.0", "return 1.0"), FEATURES),
)
PEERS = {
    "(what is right)": ("0", "2", "0", "4", "4"),
    "plain Dagster": ("6", "6", "6", "6", "6"),
    "Dagster, stale assets only": ("0", "0", "0", "0", "0"),
    "Metaflow": ("6", "6", "6", "6", "6"),
    "Kedro": ("6", "6", "6", "6", "6"),
    "Airflow": ("6", "6", "6", "6", "6"),
    "Prefect, cache policies tuned": ("0", "2", "0", "4", "0"),
    "flytekit": ("0", "2", "0", "0", "0"),
    "Snakemake": ("0", "3", "3", "4", "0"),
    "DVC": ("0", "2", "0", "4", "0"),
    "ZenML": ("0", "2", "0", "4", "0"),
    "ZenML, the helper declared by hand": ("0", "2", "0", "4", "4"),
}
"""Bodies of ingest, validate, preprocess, train, evaluate, register. In both, five epochs make another model than three
do, and evaluation says the same of it."""


def measure(work: Workplace) -> list[Row]:
    """All four edits are seen, nothing runs that need not, and nothing is declared for it."""
    package, home = work.new("six"), work.landed(BATCHES)
    made.write(package)
    environment = made.environment(package, home)
    rows, ran = [], []
    sample = processes.python("-m", "ml_platform.cli", "run", made.NAME, environment=environment)
    every = {"raw_batch", "validated_batch"} | FEATURES
    rows.append(equal("six stages, from nothing: bodies", _shown(sample), _wanted(every)))
    for what, edit, wanted in STEPS:
        if edit:
            _edit(package / made.NAME, *edit)
        sample = processes.python("-m", "ml_platform.cli", "run", made.NAME, environment=environment)
        ran.append(str(len(processes.built(sample.output))))
        rows.append(equal(f"six stages, {what}: bodies", _shown(sample), _wanted(wanted)))
    table = common.Table(["stages of which bodies ran, after", *(what for what, _, _ in STEPS)])
    table.add("ml_platform, of 8", *ran)
    for peer, counts in PEERS.items():
        table.add(f"{peer}, of 6 (recorded)", *counts)
    print(table)
    return rows


def _edit(package: Path, name: str, old: str, new: str) -> None:
    path = package / name
    text = path.read_text()
    assert old in text, (name, old)
    time.sleep(0.05)  # so that the file's time changes
    path.write_text(text.replace(old, new))


def _shown(sample: processes.Sample) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(processes.built(sample.output).items()))


def _wanted(stages: set[str]) -> str:
    many = {"raw_batch", "validated_batch", "features"}
    return ", ".join(f"{name} {BATCHES if name in many else 1}" for name in sorted(stages))
