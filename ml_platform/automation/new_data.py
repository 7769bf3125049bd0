"""The sensor that starts a run when new data has landed: one for all that is new, and never the same twice.

It asks for a run only when none that it asked for is queued or in progress, so what lands meanwhile is gathered for the
next: a burst of a thousand files makes a few runs, and training that takes hours is not queued up behind itself. The
run's key follows from what landed. Dagster makes no second run of a key, and keeps a sensor's memory together with the
requests that it was returned with; so whatever dies between two steps, doing the step again comes to the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.automation.arrivals import Arrivals, Memory, look
from ml_platform.automation.runs import SENSOR_TAG, batch_part, default_status, going_on, request
from ml_platform.dead_runs import mark_dead
from ml_platform.stages.assets import chain_job_name, partitions_of
from ml_platform.stages.chain import State
from ml_platform.stages.opening import chain_of
from ml_platform.versions.fingerprint import short_hash
from ml_platform.words import few

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.stage import Stage

SHOWN = 5
"""Batches that a message names."""


def build_new_data_sensor(stages: Mapping[str, Stage], settings: Settings) -> dg.SensorDefinition:
    """The sensor of a pipeline, whose stages these are, and which declares `new_data`."""
    pipeline = next(iter(stages.values())).pipeline
    declared = pipeline.automation.new_data
    assert declared is not None
    name = f"{pipeline.name}_new_data"

    @dg.sensor(
        name=name,
        job_name=chain_job_name(pipeline),
        description=_description(pipeline),
        minimum_interval_seconds=declared.every_seconds,
        default_status=default_status(settings),
    )
    def new_data(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance = context.instance
        mark_dead(instance)
        if mine := [run for run in going_on(instance, pipeline) if run.tags.get(SENSOR_TAG) == name]:
            return dg.SkipReason(f"Run {mine[0].run_id[:8]} is at it; what has landed since goes into the next one.")
        chain = chain_of(stages, settings, instance)
        found = look(chain, Memory.from_json(context.cursor), time.time())
        return _result(chain, found, instance)

    return new_data


def _description(pipeline: Pipeline) -> str:
    declared = pipeline.automation.new_data
    assert declared is not None
    what = "up to the features; training has its schedule" if pipeline.automation.retrain else "training included"
    return (
        f"Starts one run, {what}, for all batches that have landed whole and were not taken yet. A batch waits "
        f"{declared.deadline_hours:g} h for its other sources before people are told."
    )


def _result(chain: Chain, found: Arrivals, instance: dg.DagsterInstance) -> dg.SensorResult:
    pipeline, declared = chain.pipeline, chain.pipeline.automation.new_data
    assert declared is not None
    ready = dict(sorted(found.ready.items())[: declared.batches_a_run])
    found.memory.requested |= ready
    overdue = [
        dg.AssetObservation(
            [pipeline.name, "raw_batch"],
            partition=batch,
            description=f"Waits for {', '.join(missing)} for more than {declared.deadline_hours:g} h.",
            metadata={"notice": "overdue", "missing": ", ".join(missing)},
        )
        for batch, missing in found.overdue.items()
    ]
    return dg.SensorResult(
        run_requests=[_run(chain, ready)] if ready else None,
        skip_reason=None if ready else _nothing(found),
        dynamic_partitions_requests=_partitions(pipeline, ready, instance),
        asset_events=overdue,
        cursor=found.memory.to_json(),
    )


def _run(chain: Chain, ready: Mapping[str, str]) -> dg.RunRequest:
    pipeline = chain.pipeline
    return request(
        pipeline,
        "new data",
        f"{pipeline.name}: {short_hash(ready)}",
        batches=sorted({*ready, *_concerned(chain, ready)}),
        stages=batch_part(chain.stages) if pipeline.automation.retrain else None,
    )


def _concerned(chain: Chain, ready: Iterable[str]) -> set[str]:
    """Batches that are not new and must be brought up to date with the new ones, because training reads them all: those
    that look back at a new one, and those that are out of date already."""
    taken = chain.taken()
    names = sorted({*taken, *ready})
    place = {name: number for number, name in enumerate(names)}
    back = chain.pipeline.features.lookback
    concerned = {name for batch in ready for name in names[place[batch] + 1 : place[batch] + 1 + back]}
    for stage in chain.stages.values():
        if stage.partitioned and stage.upstream and not stage.apart:
            statuses = chain.statuses(stage.name, taken)
            concerned |= {batch for batch, status in statuses.items() if status.state in (State.STALE, State.KNOWN)}
    return concerned


def _partitions(
    pipeline: Pipeline, ready: Iterable[str], instance: dg.DagsterInstance
) -> list[dg.AddDynamicPartitionsRequest]:
    """Free-form batches become known to Dagster before the run that treats them; days exist by themselves."""
    partitions = partitions_of(pipeline)
    if not isinstance(partitions, dg.DynamicPartitionsDefinition):
        return []
    assert partitions.name is not None
    new = sorted(set(ready) - set(instance.get_dynamic_partitions(partitions.name)))
    return [partitions.build_add_request(new)] if new else []


def _nothing(found: Arrivals) -> str:
    told = []
    if found.growing:
        told.append(f"{few(found.growing, SHOWN)} may still be written")
    if found.waiting:
        told += [f"{batch} waits for {', '.join(missing)}" for batch, missing in list(found.waiting.items())[:SHOWN]]
        if len(found.waiting) > SHOWN:
            told.append(f"{len(found.waiting) - SHOWN} more wait")
    return "Nothing new." if not told else f"Nothing new is complete: {'; '.join(told)}."
