"""The runs of a pipeline that sensors look at: those that go on, and how the last one ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_platform.failures import FAILURE_TAG, STOPPED
from ml_platform.stages.assets import chain_job_name

if TYPE_CHECKING:
    from ml_platform.automation.retries import Ending
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.stage import Stage

SENSOR_TAG = "dagster/sensor_name"
"""Dagster puts it on the runs that a sensor requested."""
PRIORITY_TAG = "dagster/priority"
"""Of runs in the queue, that with the highest goes first; a run without it has 0, so a backfill of many runs gives way
to what is started here."""
PRIORITIES = {"retrain": "10", "new data": "5", "reconcile": "0"}

_GOING_ON = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def default_status(settings: Settings) -> dg.DefaultSensorStatus:
    """Whether a sensor runs from the first start of a daemon on."""
    return dg.DefaultSensorStatus.RUNNING if settings.automation else dg.DefaultSensorStatus.STOPPED


def going_on(instance: dg.DagsterInstance, pipeline: Pipeline) -> list[dg.DagsterRun]:
    """Runs of the pipeline that are queued or in progress: of the whole chain, and of assets of it."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=_GOING_ON))
    return [run for run in runs if is_of(run, pipeline)]


def is_of(run: dg.DagsterRun, pipeline: Pipeline) -> bool:
    """Whether it is a run of the pipeline's chain, or of assets of it."""
    keys = run.asset_selection or ()
    return run.job_name == chain_job_name(pipeline) or any(key.path[0] == pipeline.name for key in keys)


def last_ended(instance: dg.DagsterInstance, pipeline: Pipeline) -> dg.RunRecord | None:
    """The run of the whole chain that was made last, of those that have ended."""
    filters = dg.RunsFilter(job_name=chain_job_name(pipeline), statuses=_ENDED)
    return next(iter(instance.get_run_records(filters=filters, limit=1)), None)


def ending_of(record: dg.RunRecord) -> Ending:
    """How a run ended."""
    run = record.dagster_run
    if run.status == dg.DagsterRunStatus.SUCCESS:
        return "experiment" if run.run_config.get("replaced") else "success"
    if run.status == dg.DagsterRunStatus.CANCELED or run.tags.get(FAILURE_TAG) == STOPPED:
        return "stopped"
    # A run that was killed could not say why it failed.
    return "permanent" if run.tags.get(FAILURE_TAG) == "permanent" else "passing"


def batch_part(stages: Mapping[str, Stage]) -> list[str]:
    """The stages that bring batches up to date: the partitioned ones and what those read, in the order of the chain.

    One apart makes do with what stands: batches are scored by the champion, which is trained by the calendar.
    """
    apart = {stage.name for stage in stages.values() if stage.apart}
    part = {stage.name for stage in stages.values() if stage.partitioned} - apart
    while more := {name for stage in part for name in stages[stage].upstream} - part:
        part |= more
    return [name for name in stages if name in part | apart]


def request(
    pipeline: Pipeline, why: str, key: str, *, batches: Sequence[str] | None, stages: Sequence[str] | None, **tags: str
) -> dg.RunRequest:
    """A run of the chain's job. Dagster makes one at most for a key."""
    config: dict[str, Any] = {}
    if batches is not None:
        config["batches"] = sorted(batches)
    if stages is not None:
        config["stages"] = list(stages)
    return dg.RunRequest(
        run_key=key,
        job_name=chain_job_name(pipeline),
        run_config=config,
        tags={PRIORITY_TAG: PRIORITIES[why], "ml_platform/trigger": why, **tags},
    )
