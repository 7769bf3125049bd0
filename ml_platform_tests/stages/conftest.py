"""What tests of stages say of a run; the run itself, `cold`, is the whole suite's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.pipeline import ModelGate, Pipeline
from ml_platform.settings import Settings
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary, StageSummary
from ml_platform_tests.conftest import fresh_settings

LOTS = [f"lot-{number:02d}" for number in range(1, 7)]
BATCH_STAGES = ("raw_batch", "validated_batch", "features")
WHOLE_STAGES = ("training_set", "baseline", "trained_model", "evaluation", "registered_model")


def by_name(summary: RunSummary) -> dict[str, StageSummary]:
    return {stage.name: stage for stage in summary.stages}


def bodies(summary: RunSummary) -> dict[str, int]:
    """How many bodies ran, of stages where any did."""
    return {stage.name: stage.built + stage.failed for stage in summary.stages if stage.built + stage.failed}


def key(pipeline: Pipeline, stage: str) -> dg.AssetKey:
    return dg.AssetKey([pipeline.name, stage])


@pytest.fixture(scope="session")
def lazy_store(home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first run's store, in which the model of `lazy` is trained too: most tests need it, and it takes a while."""
    assert cold.ok
    folder = tmp_path_factory.mktemp("lazy") / "home"
    shutil.copytree(home.home, folder, symlinks=True, ignore=shutil.ignore_patterns("mlflow"))
    assert run_pipeline(lazy(tiny), fresh_settings(folder), Request(select=["trained_model"])).ok
    return folder / "store"


@pytest.fixture
def place(home: Settings, lazy_store: Path, tiny: Pipeline, tmp_path: Path) -> Settings:
    """A home of its own with the first model as champion, in a registry of its own."""
    shutil.copytree(home.home, tmp_path / "home", symlinks=True, ignore=shutil.ignore_patterns("mlflow", "store"))
    shutil.copytree(lazy_store, tmp_path / "home" / "store", symlinks=True)
    settings = fresh_settings(tmp_path / "home")
    assert run_pipeline(tiny, settings).ok
    return settings


def lazy(tiny: Pipeline, **gate: Any) -> Pipeline:
    """Hardly trained, and let through by every other gate."""
    recipe = replace(tiny.recipe, epochs=1, learning_rate=1e-4)
    return replace(tiny, recipe=recipe, gates=(), model_gate=ModelGate(draws=200, slice_rows=30, **gate))
