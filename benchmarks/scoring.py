"""Scoring by pyfunc beside the bare network on tensors that are ready: rows a second, both in one run.

Made rows of the flights' shape: 16 numbers, some missing, and seven categorical columns as text, with as many values as
the flights' have; a real, untrained network of the flights' size. Bare: the numbers as one tensor and the categories as
codes, normalised and scored in torch (`ml_platform.training.program.Program`). Pyfunc: what `mlflow.pyfunc.load_model`
returns is given a pandas frame, checks it against the signature, looks categories up, and answers with a frame. Scorer:
the same frame without MLflow around it: what is between the two is MLflow's check against the signature. Wanted of
pyfunc: at least 0.7 of the bare rows a second.

    python -m benchmarks.scoring [--rows 1 1000 100000] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import common
from ml_platform.registry.scoring_model import ScoringModel, signature
from ml_platform.training.model_folder import LoadedModel, build
from ml_platform.training.preprocessing import Categorical, Label, Numeric, Preprocessing
from ml_platform.training.program import Program
from ml_platform.training.scoring import Scorer

VALUES = {"dep_hour": 19, "carrier": 16, "origin": 3, "dest": 100, "manufacturer": 30, "engine": 6, "plane_type": 3}
NUMBERS = tuple(f"number_{place}" for place in range(16))
MODEL = "ml_platform.training.models:mlp"


def network() -> LoadedModel:
    """A network of the flights' size."""
    preprocessing = Preprocessing(
        task="binary",
        numeric=tuple(Numeric(name, 0.0, 1.0, indicator=place < 4) for place, name in enumerate(NUMBERS)),
        categorical=tuple(
            Categorical(name, "string", tuple(sorted(f"{name} {value}" for value in range(count))))
            for name, count in VALUES.items()
        ),
        label=Label("late", "integer", classes=(0, 1)),
    )
    torch.manual_seed(0)
    return LoadedModel({}, preprocessing, build(MODEL, preprocessing.inputs(), {}).eval())


def made(rows: int) -> pd.DataFrame:
    """Raw feature rows."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {name: random.normal(size=rows) for name in NUMBERS}
    for name in NUMBERS[:4]:
        columns[name][random.random(rows) < 0.02] = np.nan
    for name, count in VALUES.items():
        columns[name] = [f"{name} {value}" for value in random.integers(0, count, rows)]
    return pd.DataFrame(columns)


def pyfunc(model: LoadedModel) -> Any:
    """The model as MLflow wraps it after loading: with its signature, which each call is checked against."""
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel

    scorer = Scorer(model)
    meta = Model(signature=signature(scorer))
    meta.add_flavor("python_function", loader_module="ml_platform.registry.scoring_model")
    return PyFuncModel(model_meta=meta, model_impl=ScoringModel(scorer))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(common.header("Scoring by pyfunc", libraries=("torch", "mlflow", "pandas", "numpy", "pyarrow")))
    model = network()
    program, loaded, scorer = Program(model).eval(), pyfunc(model), Scorer(model)
    for rows in given.rows:
        frame = made(rows)
        preprocessing = model.preprocessing
        codes = [[f.values.index(v) + 1 for v in frame[f.name]] for f in preprocessing.categorical]
        tensors = torch.from_numpy(frame[list(NUMBERS)].to_numpy()), torch.tensor(codes).T.contiguous()

        def bare(tensors: tuple[torch.Tensor, torch.Tensor] = tensors) -> np.ndarray:
            with torch.inference_mode():
                return program(*tensors).numpy()

        def ours(frame: pd.DataFrame = frame) -> np.ndarray:
            return loaded.predict(frame)["probability"].to_numpy()

        assert np.abs(bare() - ours()).max() < 1e-6
        repeat = max(1, min(200, 2_000 // rows))

        def many(call: Any, repeat: int = repeat) -> Any:
            return lambda: common.seconds(lambda: [call() for _ in range(repeat)])

        def alone(frame: pd.DataFrame = frame) -> np.ndarray:
            return scorer.score(frame)

        timed = common.alternate({"bare": many(bare), "scorer": many(alone), "pyfunc": many(ours)}, rounds=given.rounds)
        print(f"{rows:,} rows at a time")
        for name, times in timed.items():
            speed = rows * repeat / statistics.median(times)
            ratio = statistics.median(b / own for b, own in zip(timed["bare"], times, strict=True))
            print(f"  {name:<8}{speed:>12,.0f} rows/s  {ratio:.2f} of the bare")


if __name__ == "__main__":
    main()
