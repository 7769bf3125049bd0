"""A pipeline's sensors and schedules, as it declares them. Loading them lists, plans and connects to nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.automation.new_data import build_new_data_sensor
from ml_platform.automation.reconcile import build_reconcile_sensor
from ml_platform.automation.runs import request
from ml_platform.stages.assets import chain_job_name

if TYPE_CHECKING:
    from ml_platform.settings import Settings
    from ml_platform.stages.stage import Stage


def build_sensors(stages: Mapping[str, Stage], settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors of a pipeline, whose stages these are. They run from the first start of a daemon on."""
    declared = next(iter(stages.values())).pipeline.automation
    sensors = []
    if declared.new_data is not None:
        sensors.append(build_new_data_sensor(stages, settings))
    if declared.reconcile is not None:
        sensors.append(build_reconcile_sensor(stages, settings))
    return sensors


def build_schedules(stages: Mapping[str, Stage], settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedule of a pipeline, whose stages these are, that is trained by the calendar."""
    pipeline = next(iter(stages.values())).pipeline
    declared = pipeline.automation.retrain
    if declared is None:
        return []

    @dg.schedule(
        name=f"{pipeline.name}_retrain",
        job_name=chain_job_name(pipeline),
        cron_schedule=declared.cron,
        execution_timezone=declared.timezone,
        description=f"Brings {pipeline.name} up to date, training and evaluation included.",
        default_status=dg.DefaultScheduleStatus.RUNNING if settings.automation else dg.DefaultScheduleStatus.STOPPED,
    )
    def retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        planned: dt.datetime = context.scheduled_execution_time
        return request(pipeline, "retrain", planned.astimezone(dt.UTC).isoformat(), batches=None, stages=None)

    return [retrain]
