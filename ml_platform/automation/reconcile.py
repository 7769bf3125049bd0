"""The sensor that repairs: it plans now and then, and starts a run for whatever is stale.

It looks at how things stand, not at what happened, so it finds whatever went stale while nobody looked: code that was
deployed while nothing ran, a run that was killed, a run that could not reach the store. When a run is due is decided
in `retries`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, cast

import dagster as dg

from ml_platform.automation.retries import Attempts, LastRun, consider
from ml_platform.automation.runs import batch_part, default_status, ending_of, going_on, last_ended, request
from ml_platform.dead_runs import mark_dead
from ml_platform.stages.assets import chain_job_name
from ml_platform.stages.opening import chain_of
from ml_platform.stages.plan import StagePlan, make_plan
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.stage import Stage

STALE_TAG = "ml_platform/stale"
"""On the runs that are started here: names what was to be done."""
LEFT_TO_NEW_DATA_SECONDS = 3600.0
"""How long a file that nobody has read yet is left to the sensor that takes new data."""
_LOADED = time.time()


def build_reconcile_sensor(stages: Mapping[str, Stage], settings: Settings) -> dg.SensorDefinition:
    """The sensor of a pipeline, whose stages these are, and which declares `reconcile`."""
    pipeline = next(iter(stages.values())).pipeline
    declared = pipeline.automation.reconcile
    assert declared is not None

    @dg.sensor(
        name=f"{pipeline.name}_reconcile",
        job_name=chain_job_name(pipeline),
        description=_description(pipeline),
        minimum_interval_seconds=declared.every_seconds,
        default_status=default_status(settings),
    )
    def reconcile(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        instance, now = context.instance, time.time()
        for run_id in mark_dead(instance):
            context.log.warning("Run %s is marked as failed: its process is gone.", run_id)
        if runs := going_on(instance, pipeline):
            return dg.SkipReason(f"Run {runs[0].run_id[:8]} is at it.")
        if edited := [stage.name for stage in stages.values() if stage.version_now().value != stage.version.value]:
            return dg.SkipReason(
                f"The code of {', '.join(edited)} was edited since it was loaded: reload the code location for it."
            )
        chain = chain_of(stages, settings, instance)
        chain.planning = True
        last = last_ended(instance, pipeline)
        if new := _just_landed(chain, last, now):
            return dg.SkipReason(f"{len(new)} batches have just landed: {pipeline.name}_new_data takes them first.")
        plans = [
            plan for plan in make_plan(chain, _settled(chain, now)) if plan.to_do and plan.name in _scope(stages, last)
        ]
        attempts = Attempts.from_json(context.cursor)
        if not plans:
            return dg.SensorResult(skip_reason="Nothing is stale.", cursor=Attempts(counted=_id(last)).to_json())
        key = _key(chain, plans)
        before, attempts = attempts, consider(attempts, key, _judged(last, key, plans), now, declared)
        if why := _not_now(attempts, now):
            notices = _notices(pipeline, before, attempts)
            return dg.SensorResult(
                skip_reason=f"{_told(plans)}: {why}.", cursor=attempts.to_json(), asset_events=notices
            )
        run = request(
            pipeline,
            "reconcile",
            f"{pipeline.name}: {key} after {attempts.counted or 'nothing'}",
            batches=sorted(_batches(plans)),
            stages=[name for name in stages if name in _scope(stages, last)],
            **{STALE_TAG: key},
        )
        return dg.SensorResult(run_requests=[run], cursor=attempts.to_json())

    return reconcile


def _description(pipeline: Pipeline) -> str:
    declared = pipeline.automation.reconcile
    assert declared is not None
    return (
        "Plans, and starts a run for what is stale: new code, or a run that died or could not reach what it needed. "
        f"Tries again at most {declared.retries} times, with growing pauses, and not at all what failed because of its "
        "data or code, until either changes."
    )


def _just_landed(chain: Chain, last: dg.RunRecord | None, now: float) -> list[str]:
    """Complete batches with a file that nobody has read yet: reading them is not for a sensor, and what is planned
    without them is not what it should be. A run that should have read them and died is for us to repeat."""
    if chain.pipeline.automation.new_data is None:
        return []
    repeated = _asked(last.dagster_run, "batches") or set() if last and ending_of(last) == "passing" else set()
    files = {source.name: chain.landing_files(source.name, source.format) for source in chain.pipeline.sources}
    complete = set.intersection(*(set(files[s.name]) for s in chain.pipeline.sources if s.required)) - repeated
    unread = {batch: [listed[batch] for listed in files.values() if batch in listed] for batch in complete}
    known = chain.digests.known(file for landed in unread.values() for file in landed)
    return sorted(
        batch
        for batch, landed in unread.items()
        if any(file.url not in known and 0 <= now - file.modified < LEFT_TO_NEW_DATA_SECONDS for file in landed)
    )


def _settled(chain: Chain, now: float) -> list[str] | None:
    """The batches to plan for: all but those that still wait for a source which they may be taken without. None where
    there are no such batches."""
    declared, sources = chain.pipeline.automation.new_data, chain.pipeline.sources
    if declared is None or all(source.required for source in sources):
        return None
    files = [chain.landing_files(source.name, source.format) for source in sources]
    taken = chain.published.versions("raw_batch")
    settled = []
    for batch in chain.batches():
        landed = [listed[batch] for listed in files if batch in listed]
        newest = max((file.modified for file in landed), default=0.0)
        if batch in taken or len(landed) == len(sources) or now - newest > declared.deadline_hours * 3600:
            settled.append(batch)
    return settled


def _scope(stages: Mapping[str, Stage], last: dg.RunRecord | None) -> Collection[str]:
    """The stages to repair. Where training has a calendar of its own, it is repeated here only if it did not succeed
    for a reason that passes."""
    pipeline = next(iter(stages.values())).pipeline
    if pipeline.automation.retrain is None:
        return list(stages)
    again: set[str] = set()
    if last is not None and ending_of(last) == "passing":
        again = _asked(last.dagster_run, "stages") or set(stages)
    return {*batch_part(stages), *again}


def _judged(last: dg.RunRecord | None, key: str, plans: list[StagePlan]) -> LastRun | None:
    if last is None:
        return None
    run, ending = last.dagster_run, ending_of(last)
    batches, stages = _asked(run, "batches"), _asked(run, "stages")
    tried = (batches is None or batches >= _batches(plans)) and (stages is None or stages >= {p.name for p in plans})
    if ending == "success":
        tried = run.tags.get(STALE_TAG) == key  # another run may have done what was to do then, and this is new
    elif ending == "permanent":
        tried = tried and last.create_timestamp.timestamp() > _LOADED  # else the code may be another since
    return LastRun(run_id=run.run_id, ending=ending, tried=tried)


def _asked(run: dg.DagsterRun, what: str) -> set[str] | None:
    """The batches or stages that a run was to treat; None for all."""
    named = cast("list[str] | None", run.run_config.get(what))
    return None if named is None else set(named)


def _batches(plans: list[StagePlan]) -> set[str]:
    return {batch for plan in plans for batch in _to_do(plan) if batch}


def _id(last: dg.RunRecord | None) -> str:
    return last.dagster_run.run_id if last else ""


def _to_do(plan: StagePlan) -> list[str]:
    return [*plan.build, *plan.known, *plan.may]


def _key(chain: Chain, plans: list[StagePlan]) -> str:
    """Names what is to be done: it changes with the code, the data and how far earlier runs came."""
    found: dict[str, object] = {}
    for plan in plans:
        statuses = chain.statuses(plan.name, _to_do(plan))
        prints = {batch: status.work.fingerprint if status.work else "" for batch, status in statuses.items()}
        found[plan.name] = [chain.stages[plan.name].version.value, prints, sorted(plan.known)]
    return short_hash(found)


def _not_now(attempts: Attempts, now: float) -> str:
    """Why no run is asked for at this look; "" if one is."""
    if attempts.given_up:
        return f"not tried, {attempts.given_up}"
    if now >= attempts.not_before:
        return ""
    wait = f"in {attempts.not_before - now:.0f} s at the earliest"
    return f"tried again {wait}, after {attempts.failed} failures" if attempts.failed else f"a run is started {wait}"


def _notices(pipeline: Pipeline, before: Attempts, now: Attempts) -> list[dg.AssetObservation]:
    """What people are told when trying again has not helped. A failure that is not tried again speaks for itself."""
    if not now.given_up or now.failed <= before.failed:
        return []
    text = f"A run has failed {now.failed} times in a row, for a reason that did not pass: no other is started."
    return [dg.AssetObservation([pipeline.name, "raw_batch"], description=text, metadata={"notice": "given up"})]


def _told(plans: list[StagePlan]) -> str:
    return "To do: " + ", ".join(f"{plan.name} ({len(_to_do(plan))})" for plan in plans)
