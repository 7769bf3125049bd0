"""The resources that Dagster hands to every step. Each is made only when a body asks for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource

from ml_platform.errors import SetupError
from ml_platform.registry.tracking import MlflowResource
from ml_platform.settings import Settings
from ml_platform.stages.chain import Chain
from ml_platform.stages.opening import chain_of
from ml_platform.stages.spark import spark_config, stop
from ml_platform.stages.stage import Bench, Stage

if TYPE_CHECKING:
    from ml_platform.launch.protocol import Launcher

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


def launcher_of(settings: Settings, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Launcher:
    """Where a run's training jobs go, with what dagster-k8s knows of the run: its tags, code location and launcher."""
    if settings.launcher == "local":
        from ml_platform.launch.local import LocalLauncher

        return LocalLauncher(settings.home / "jobs")
    try:
        from dagster_k8s import K8sRunLauncher
        from dagster_k8s.container_context import K8sContainerContext
    except ModuleNotFoundError as error:
        raise SetupError(
            "A package for training on Kubernetes is missing.", got=error, fix="pip install 'ml-platform[k8s]'"
        ) from error
    from ml_platform.launch.kubernetes.launcher import KubernetesLauncher
    from ml_platform.stages.opening import store_of

    launching = context.instance.run_launcher
    known = launching if isinstance(launching, K8sRunLauncher) else None
    team = K8sContainerContext.create_for_run(context.run, known, include_run_tags=True)
    return KubernetesLauncher(settings.kubernetes, store_of(settings), settings.home / "jobs-kubernetes", team=team)


@contextmanager
def bench_of(
    chain: Chain, context: dg.OpExecutionContext | dg.AssetExecutionContext, spark: Any, mlflow: Any
) -> Iterator[Bench]:
    """What bodies use during one step."""
    with chain.store.scratch() as scratch, ended_with_the_step():
        yield Bench(
            chain=chain,
            context=context,
            spark=spark,
            mlflow=mlflow,
            launcher=launcher_of(chain.settings, context),
            scratch=scratch,
        )
