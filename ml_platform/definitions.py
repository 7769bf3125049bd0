"""What Dagster loads: every pipeline's assets, jobs, sensors and schedules, and the resources. Only composes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg

from ml_platform.automation.abandoned import build_sweep_sensor
from ml_platform.automation.alerts import build_alert_sensor
from ml_platform.automation.wiring import build_schedules, build_sensors
from ml_platform.discovery import pipelines
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings, settings
from ml_platform.stages import stages_of
from ml_platform.stages.assets import build_assets, build_chain_job
from ml_platform.stages.decide_job import build_decide_job
from ml_platform.stages.resources import build_resources
from ml_platform.stages.stage import Stage
from ml_platform.stages.waive_job import build_waive_job


def _jobs(stages: Mapping[str, Stage]) -> tuple[dg.JobDefinition, ...]:
    return build_chain_job(stages), build_waive_job(stages), build_decide_job(stages)


def build_definitions(declared: Iterable[Pipeline], settings: Settings) -> dg.Definitions:
    """Definitions of these pipelines, under these settings."""
    named = {pipeline.name: pipeline for pipeline in declared}
    chains = [stages_of(pipeline) for pipeline in named.values()]
    return dg.Definitions(
        assets=[asset for stages in chains for asset in build_assets(stages)],
        jobs=[job for stages in chains for job in _jobs(stages)],
        sensors=[
            *(sensor for stages in chains for sensor in build_sensors(stages, settings)),
            build_alert_sensor(named, settings),
            *([build_sweep_sensor(settings)] if settings.launcher == "kubernetes" else []),
        ],
        schedules=[schedule for stages in chains for schedule in build_schedules(stages, settings)],
        resources=build_resources(settings),
        # Stages hand over references and start their own processes where they need them: a process a step would cost
        # 1.5 s each, and a JVM for each that touches Spark.
        executor=dg.in_process_executor,
    )


defs = build_definitions(pipelines(settings()).values(), settings())
