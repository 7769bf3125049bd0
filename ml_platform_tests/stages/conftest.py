"""The tiny pipeline run once through the whole chain, for all tests that look at what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages.opening import landing_of
from ml_platform.stages.run import run_pipeline
from ml_platform.stages.summary import RunSummary, StageSummary
from ml_platform_tests.conftest import fresh_settings, land_samples

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

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
def home(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline, spark: SparkSession) -> Settings:
    """A home in which the tiny pipeline's samples have landed. Tests leave it as the first run left it."""
    settings = fresh_settings(tmp_path_factory.mktemp("chain") / "a home")
    land_samples(tiny, landing_of(settings))
    return settings


@pytest.fixture(scope="session")
def cold(home: Settings, tiny: Pipeline) -> RunSummary:
    """The first run there."""
    return run_pipeline(tiny, home)
