"""What state is a machine in, from its readings and the lot before? Made-up data, learnable from a few hundred rows."""

from __future__ import annotations

from ml_platform.pipeline import Features, MetricGate, NamedBatches, Pipeline, Recipe, Source, Split

HERE = "ml_platform_tests.tiny_pipeline"

PIPELINE = Pipeline(
    name="tiny",
    description="Tells the state of a machine from its readings. A batch is one lot; a row is one reading.",
    owners=("team:tests",),
    batches=NamedBatches(),
    sources=(Source(name="readings", schema=f"{HERE}.schema:Readings", format="csv", known_later=("state",)),),
    features=Features(
        function=f"{HERE}.features:build",
        keys=("reading",),
        numeric=("load", "vibration", "vibration_before"),
        categorical=("machine", "shift"),
        lookback=1,
    ),
    label="state",
    task="multiclass",
    recipe=Recipe(
        model="ml_platform.training.models:mlp",
        hyperparameters={"hidden": [16], "embedding": 2},
        learning_rate=0.02,
        epochs=12,
        batch_size=32,
        processes=2,
        seed=7,
    ),
    split=Split.rolling(holdout=2),
    gates=(MetricGate(metric="accuracy", at_least=0.6),),
    leakage_limit=0.99,  # vibration tells most of it, and is known in time
    sample_data=f"{HERE}.data:sample",
)
