"""A pipeline that waits for two sources, its landing place, and its sensors evaluated as Dagster's daemon does it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.automation.arrivals import Memory
from ml_platform.automation.declaration import Automation, NewData, Reconcile
from ml_platform.automation.wiring import build_sensors
from ml_platform.definitions import build_definitions
from ml_platform.instance import prepare_instance
from ml_platform.landing import Landing
from ml_platform.pipeline import Pipeline, Source
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import landing_of
from ml_platform.stages.run import Request, run_pipeline

TAKE = ["raw_batch"]
"""The one stage that these tests carry out: it is what sensors wait for, and costs little."""


@pytest.fixture
def quick(tiny: Pipeline) -> Pipeline:
    """The tiny pipeline with a second source, looked at often."""
    second = Source(name="orders", schema=tiny.sources[0].schema, format="csv")
    automation = Automation(new_data=NewData(every_seconds=5), reconcile=Reconcile(every_seconds=5))
    return replace(tiny, sources=(*tiny.sources, second), automation=automation)


@dataclass
class Desk:
    """A home with a pipeline, whose sensors are evaluated by hand."""

    pipeline: Pipeline
    settings: Settings
    instance: dg.DagsterInstance
    cursors: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = build_definitions([self.pipeline], self.settings).get_repository_def()
        self.landing: Landing = landing_of(self.settings)

    def land(self, batch: str, *sources: str, age: float = 60.0, data: str = "ok") -> None:
        """Put a batch's files there, as if written `age` seconds ago."""
        for source in sources or [source.name for source in self.pipeline.sources]:
            self.landing.put(
                self.pipeline, source, batch, f"batch,source,data\n{batch},{source},{data}\n".encode(), "csv"
            )
            if self.landing.local:
                path = Path(self.settings.landing) / self.pipeline.name / source / f"{batch}.csv"
                os.utime(path, (time.time() - age,) * 2)

    def tick(self, name: str = "new_data", *, commit: bool = True) -> dg.SensorResult | dg.SkipReason:
        """Evaluate a sensor. Without `commit` its cursor and requests are lost, as if the daemon had died."""
        sensors = {s.name: s for s in build_sensors(stages_of(self.pipeline), self.settings)}
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursors.get(name), repository_def=self.repository
        ) as context:
            result: Any = sensors[f"{self.pipeline.name}_{name}"](context)
        if commit and isinstance(result, dg.SensorResult):
            self.cursors[name] = result.cursor
            for asked in result.dynamic_partitions_requests or ():
                self.instance.add_dynamic_partitions(asked.partitions_def_name, asked.partition_keys)
        return result

    def asked(self, name: str = "new_data", *, commit: bool = True) -> dg.RunRequest | None:
        """The run that a sensor asks for, if any."""
        result = self.tick(name, commit=commit)
        requests = (result.run_requests or []) if isinstance(result, dg.SensorResult) else []
        assert len(requests) <= 1
        return requests[0] if requests else None

    def new(self) -> list[str] | None:
        """What is new to the sensor, of the batches of the run that it asks for; None if it asks for none. The run
        also treats those that are out of date, and here that is all, since only their first stage is carried out."""
        before = Memory.from_json(self.cursors.get("new_data")).requested
        request = self.asked()
        if request is None:
            return None
        new = Memory.from_json(self.cursors["new_data"]).requested.items() - before.items()
        assert {batch for batch, _ in new} <= set(request.run_config["batches"])
        return sorted(batch for batch, _ in new)

    def take(self, *batches: str) -> None:
        """What the requested run does first."""
        summary = run_pipeline(self.pipeline, self.settings, Request(batches=batches or None, select=TAKE))
        assert not summary.problems

    def run(self, request: dg.RunRequest, status: dg.DagsterRunStatus, **tags: str) -> str:
        """A run of that request in the event log that has come so far, without its being carried out."""
        job = self.repository.get_job(f"{self.pipeline.name}_chain")
        sensor = {"dagster/sensor_name": f"{self.pipeline.name}_new_data"}
        made = self.instance.create_run_for_job(
            job, run_config=request.run_config, tags={**sensor, **request.tags, **tags}, status=status
        )
        return made.run_id


@pytest.fixture
def desk(quick: Pipeline, settings: Settings) -> Iterator[Desk]:
    with prepare_instance(settings) as instance:
        yield Desk(quick, settings, instance)
