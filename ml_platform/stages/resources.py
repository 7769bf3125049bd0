"""The resources that Dagster hands to every step. Each is made only when a body asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource

from ml_platform.registry.tracking import MlflowResource
from ml_platform.settings import Settings
from ml_platform.stages.chain import Chain
from ml_platform.stages.opening import chain_of
from ml_platform.stages.spark import spark_config, stop
from ml_platform.stages.stage import Bench, Stage

_secrets: dict[str, dict[str, dict[str, object]]] = {}
"""Storage options by the settings that they belong to."""


def _identity(shown: Mapping[str, Any]) -> str:
    return json.dumps(shown, sort_keys=True)


class PlatformResource(dg.ConfigurableResource[Any]):
    """The platform's settings. Dagster shows a resource's configuration to everyone, so it holds no storage
    options and no addresses: those may be secrets, and stay in the process that read them."""

    settings: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings) -> PlatformResource:
        """The resource of these settings."""
        shown = settings.model_dump(mode="json", exclude={"storage_options", "alerts"})
        _secrets[_identity(shown)] = settings.storage_options
        return cls(settings=shown)

    def typed(self) -> Settings:
        """The settings, typed."""
        return Settings(**self.settings, storage_options=_secrets[_identity(self.settings)])

    def chain(self, stages: Mapping[str, Stage], instance: dg.DagsterInstance) -> Chain:
        """A pipeline, whose stages these are, as it stands now."""
        return chain_of(stages, self.typed(), instance)


def build_resources(settings: Settings) -> dict[str, Any]:
    """What steps ask for by name."""
    return {
        "platform": PlatformResource.of(settings),
        "spark": LazyPySparkResource(
            spark_config=spark_config(
                master=settings.spark_master, memory=settings.spark_memory, scratch=settings.home / "spark"
            )
        ),
        "mlflow": MlflowResource(tracking_uri=settings.mlflow),
    }


@contextmanager
def ended_with_the_step() -> Iterator[None]:
    """End the Spark session that is started inside, JVM and all: training needs the memory, and dagster-pyspark never
    ends one. A session that was there before belongs to somebody else and stays."""
    from pyspark.sql import SparkSession

    before = SparkSession.getActiveSession()
    try:
        yield
    finally:
        session = SparkSession.getActiveSession()
        if session is not None and before is None:
            stop(session)


@contextmanager
def bench_of(
    chain: Chain, context: dg.OpExecutionContext | dg.AssetExecutionContext, spark: Any, mlflow: Any
) -> Iterator[Bench]:
    """What bodies use during one step."""
    from ml_platform.launch.local import LocalLauncher

    with chain.store.scratch() as scratch, ended_with_the_step():
        yield Bench(
            chain=chain,
            context=context,
            spark=spark,
            mlflow=mlflow,
            launcher=LocalLauncher(chain.settings.home / "jobs"),
            scratch=scratch,
        )
