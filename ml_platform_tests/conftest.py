"""Fixtures of the whole suite: a fresh home for each test that asks, and one Spark session for all of a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ml_platform.naming import load_named
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml_platform.landing import Landing
    from ml_platform.stages.summary import RunSummary


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home that nothing was ever done in. Landed files need not settle."""
    return fresh_settings(tmp_path / "home")


def fresh_settings(home: Path, **more: Any) -> Settings:
    """Settings of a home, without waiting for landed files to settle."""
    return Settings(home=home, settle_seconds=0.0, **more)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One session, one JVM for all tests of this process."""
    from ml_platform.stages.spark import builder, spark_config, stop

    config = spark_config(master="local[2]", memory="1g", scratch=tmp_path_factory.mktemp("spark"))
    session = builder(config).getOrCreate()
    yield session
    stop(session)


@pytest.fixture(scope="session")
def tiny() -> Pipeline:
    """The tiny pipeline: three classes, free-form batch names, one CSV source, a look-back of one batch."""
    from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE

    return PIPELINE


def land_samples(pipeline: Pipeline, landing: Landing, keep: Callable[[str], bool] = lambda batch: True) -> None:
    """Land a pipeline's sample data: the batches whose name `keep` accepts, and every reference."""
    assert pipeline.sample_data is not None
    formats = {feed.name: feed.format for feed in (*pipeline.sources, *pipeline.references)}
    for feed, batch, table in load_named(pipeline.sample_data)():
        if batch is None:
            landing.put(pipeline, "references", feed, table, formats[feed])
        elif keep(batch):
            landing.put(pipeline, feed, batch, table, formats[feed])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline, spark: SparkSession) -> Settings:
    """A home in which the tiny pipeline's samples have landed. Tests leave it as the first run left it."""
    from ml_platform.stages.opening import landing_of

    settings = fresh_settings(tmp_path_factory.mktemp("chain") / "a home")
    land_samples(tiny, landing_of(settings))
    return settings


@pytest.fixture(scope="session")
def cold(home: Settings, tiny: Pipeline) -> RunSummary:
    """The first run there."""
    from ml_platform.stages.run import run_pipeline

    return run_pipeline(tiny, home)
