"""One typed `Settings`, and the only place that reads the environment (variables `ML_PLATFORM_*`)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class KubernetesSettings(BaseModel):
    """How training runs on a cluster. No secret belongs here: name Kubernetes Secrets in `container`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    namespace: str = Field(default="default", description="Where Jobs are made.")
    kubeconfig: str = Field(default="", description="Its file. Default: as kubectl, or the pod's service account.")
    context: str = Field(default="", description="Which context of the kubeconfig. Default: its current one.")
    image: str = Field(default="", description="What pods run: the project, installed, at the launcher's revision.")
    python: str = Field(default="python", description="The image's Python.")
    store: str = Field(
        default="", description="The store's URL as pods see it, where that differs: a folder on a volume of theirs."
    )
    container: dict[str, object] = Field(
        default_factory=dict,
        description="As `k8s` of a code location's container_context in dagster-k8s: service_account_name, "
        "env_secrets, volumes, volume_mounts, resources, run_k8s_config. A run's `dagster-k8s/config` comes on top.",
    )
    processes_per_pod: int = Field(default=1, ge=1, description="Ranks in one pod.")
    queue: str = Field(default="", description="Kueue's local queue that the Job waits in.")
    scheduler: str = Field(default="", description="schedulerName of the pods.")
    deadline_seconds: int = Field(default=24 * 3600, ge=1, description="How long a job may take once it was admitted.")
    image_pull_seconds: float = Field(
        default=300.0, gt=0, description="How long the pull of a pod's image may keep failing before the job is ended."
    )
    ttl_seconds: int = Field(default=24 * 3600, ge=0, description="How long a finished Job keeps its pods and logs.")
    abandoned_seconds: int = Field(
        default=3600, ge=60, description="How long a running job that nobody follows is left for somebody to join."
    )
    grace_seconds: int = Field(default=30, ge=1, description="How long a pod may take to end by itself.")
    poll_seconds: float = Field(default=1.0, gt=0, description="How often to look at a job.")
    patience_seconds: float = Field(default=300.0, gt=0, description="How long the API server may be away.")


class Settings(BaseSettings):
    """Where things are kept and how much of the machine they may use. Every default works without a server."""

    model_config = SettingsConfigDict(
        env_prefix="ML_PLATFORM_", extra="ignore", frozen=True, validate_default=True, populate_by_name=True
    )

    home: Path = Field(default=Path(".ml_platform"), description="Folder that holds everything not named otherwise.")
    store: str = Field(default="", description="Folder or fsspec URL of the artifact store. Default: HOME/store.")
    landing: str = Field(default="", description="Folder or fsspec URL where data lands. Default: HOME/landing.")
    mlflow: str = Field(default="", description="MLflow tracking URI. Default: SQLite under HOME.")
    dagster_home: Path = Field(default=Path(), description="Dagster's instance folder. Default: HOME/dagster.")
    server: str = Field(
        default="", description="URL of a Dagster webserver whose queue runs go through. Default: `ml-platform ui`'s."
    )
    pipelines: str = Field(
        default="",
        description="Further pipelines, comma-separated modules; each holds a PIPELINE, or packages that do.",
    )
    storage_options: dict[str, dict[str, object]] = Field(
        default_factory=dict,
        description='JSON: options for fsspec by protocol, such as {"s3": {"endpoint_url": "http://..."}}.',
    )
    spark_master: str = Field(default="local[*]", description="Spark master.")
    spark_memory: str = Field(
        default="1g", pattern=r"^[1-9][0-9]*[kmgtKMGT]$", description="Heap of the Spark driver, such as 512m or 4g."
    )
    gate_memory: int = Field(default=512, ge=64, description="MiB that checking one batch may use.")
    settle_seconds: float = Field(
        default=2.0, ge=0, allow_inf_nan=False, description="How long a landed file must have kept still."
    )
    automation: bool = Field(
        default=True,
        description="Whether sensors and schedules run from the first start of a daemon on. Each can be switched in "
        "Dagster's Automation page, and keeps that.",
    )
    alerts: str = Field(
        default="",
        repr=False,
        description="Where people are told of failed runs, rejected batches and what waits too long: Apprise URLs, "
        "separated by commas, such as mailto://... or slack://...",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where training runs.")
    launcher: Literal["local", "kubernetes"] = Field(default="local", description="Where training jobs run.")
    candidates_at_once: int = Field(
        default=0,
        ge=0,
        description="How many candidates of a pipeline are trained at the same time. Default: one on this machine, all "
        "of them on Kubernetes, whose queue decides.",
    )
    kubernetes: KubernetesSettings = Field(
        default=KubernetesSettings(),
        description='JSON: how, on a cluster, such as {"namespace": "ml", "image": "..."}.',
    )
    image: str = Field(
        default="",
        description="The container image that this process runs in, best with its digest: NAME@sha256:... It is kept "
        "with what is built. Default: that of the Kubernetes settings, where training runs there.",
    )
    java_home: str = Field(
        default="", validation_alias="JAVA_HOME", description="Where Java is (JAVA_HOME). Default: java on the PATH."
    )

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @model_validator(mode="after")
    def _derive(self) -> Settings:
        derived = {
            "store": self.store or str(self.home / "store"),
            "landing": self.landing or str(self.home / "landing"),
            "mlflow": self.mlflow or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}",
            "dagster_home": self.home / "dagster" if self.dagster_home == Path() else self.dagster_home.absolute(),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        return self

    @property
    def cache(self) -> Path:
        """Local copies of a remote store's files, and what was verified. May be deleted at any time."""
        return self.home / "cache"

    def training_at_once(self, candidates: int) -> int:
        """How many of so many candidates are trained at the same time; at least one."""
        return self.candidates_at_once or (candidates if self.launcher == "kubernetes" else 1) or 1

    @property
    def image_digest(self) -> str:
        """The image that code runs in, as far as it is known: by its digest, or else by its name."""
        known = (self.image, self.kubernetes.image if self.launcher == "kubernetes" else "")
        return next((image for image in known if "@sha256:" in image), next(filter(None, known), ""))

    def apart(self, folder: Path) -> Settings:
        """Settings under which everything is kept in a folder, whatever the environment says, and this machine is
        used: for a chain that nobody else is to see."""
        machine = {
            *("pipelines", "spark_master", "spark_memory", "gate_memory", "device", "candidates_at_once"),
            *("java_home", "image"),
        }
        return Settings(
            home=folder,
            store=str(folder / "store"),
            landing=str(folder / "landing"),
            mlflow=f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}",
            dagster_home=folder / "dagster",
            server="",
            storage_options={},
            alerts="",
            automation=False,
            settle_seconds=0.0,
            launcher="local",
            **self.model_dump(include=machine),
        )

    @property
    def pipeline_modules(self) -> tuple[str, ...]:
        """The modules that `pipelines` names."""
        return tuple(name.strip() for name in self.pipelines.split(",") if name.strip())


@functools.cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment with `changes`, for a process that it starts."""
    return {**os.environ, **changes}
