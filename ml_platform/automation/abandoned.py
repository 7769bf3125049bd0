"""The sensor that finds training jobs on a cluster that nobody wants any more, and removes them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.automation.runs import default_status
from ml_platform.errors import PlatformError
from ml_platform.recipe import TRAINED_MODEL

if TYPE_CHECKING:
    from ml_platform.launch.kubernetes.sweep import Swept
    from ml_platform.settings import Settings

EVERY_SECONDS = 300


def build_sweep_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor, for all pipelines."""

    @dg.sensor(
        name="abandoned_jobs",
        description="Removes training jobs on Kubernetes that no run follows and no pipeline would train now.",
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=default_status(settings),
    )
    def abandoned_jobs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        found = sweep(settings, context.instance)
        for each in found:
            context.log.warning("Removed %s of %s: %s.", each.what, each.pipeline, each.why)
        return dg.SkipReason(f"Removed {len(found)}." if found else "Every job is wanted.")

    return abandoned_jobs


def sweep(settings: Settings, instance: dg.DagsterInstance, *, dry_run: bool = False) -> list[Swept]:
    """Remove what nobody wants.

    Args:
        settings: of the cluster, the store and the pipelines.
        instance: who knows which runs go on.
        dry_run: only say.

    Raises:
        PlatformError: the cluster or the store cannot be asked.
    """
    from ml_platform.automation.needed import running
    from ml_platform.dead_runs import mark_dead
    from ml_platform.launch.kubernetes import sweep as sweeping
    from ml_platform.launch.kubernetes.cluster import Cluster
    from ml_platform.stages.opening import store_of

    mark_dead(instance)
    live = {name for name, _ in running(instance)}
    cluster, store = Cluster(settings.kubernetes), store_of(settings)
    wanted = functools.cache(functools.partial(_wanted, settings))
    found = sweeping.sweep_jobs(
        cluster,
        settings.kubernetes,
        store,
        running=lambda pipeline: pipeline in live or "" in live,
        wanted=wanted,
        dry_run=dry_run,
    )
    trains = functools.cache(functools.partial(_trains, settings))
    return [*found, *sweeping.sweep_store(cluster, store, trains=trains, dry_run=dry_run)]


def _wanted(settings: Settings, name: str) -> set[str] | None:
    """The fingerprints of the models that a pipeline would train now; None where that cannot be told."""
    from ml_platform.discovery import pipelines
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of
    from ml_platform.stages.stage import UNPARTITIONED

    pipeline = pipelines(settings).get(name)
    if pipeline is None:
        return None
    chain = chain_of(stages_of(pipeline), settings)
    chain.planning = True
    try:
        works = [chain.statuses(stage)[UNPARTITIONED].work for stage in pipeline.recipes]
    except PlatformError:  # where data lands is away: the job is left alone until it has been idle for long
        return None
    known = {work.fingerprint for work in works if work is not None}
    return known if len(known) == len(works) else None


def _trains(settings: Settings, name: str) -> set[str]:
    """Names of the stages of a pipeline that train. Where it is not declared any more, of one with one recipe."""
    from ml_platform.discovery import pipelines

    pipeline = pipelines(settings).get(name)
    return {TRAINED_MODEL, *(pipeline.recipes if pipeline else ())}
