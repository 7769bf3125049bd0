"""One typed `Settings`, and the only place that reads the environment (variables `ML_PLATFORM_*`)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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
