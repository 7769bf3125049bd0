"""What must not be thrown away: what a registered model, a published partition, a job or a run in progress needs.

Asked of those who know: the registry, Dagster, the planner, and the folders of training jobs. Where one of them cannot
be asked, nothing can be said, and an error says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import PlatformError, SetupError
from ml_platform.recipe import trains
from ml_platform.store.garbage import Garbage, Needed

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from ml_platform.settings import Settings
    from ml_platform.store import Manifest, Store

Names = set[tuple[str, str]]
"""Pipelines, with data versions or fingerprints of artifacts."""


def needed(settings: Settings, store: Store, manifests: Collection[Manifest]) -> Needed:
    """What must stay of these artifacts.

    Raises:
        PlatformError: the registry, Dagster, the landing place or a pipeline's code cannot be asked.
    """
    from ml_platform.dead_runs import mark_dead
    from ml_platform.instance import prepare_instance

    try:
        with prepare_instance(settings) as instance:
            mark_dead(instance)
            names = _published(settings, instance, manifests)
            runs = dict(running(instance))
    except PlatformError:
        raise
    except Exception as error:
        raise SetupError(
            "Dagster did not say what is published and what runs, so nothing was removed.",
            where=settings.dagster_home,
            got=f"{type(error).__name__}: {error}",
            fix="make Dagster's database readable, or correct ML_PLATFORM_DAGSTER_HOME",
        ) from error
    names |= _registered(settings, store, manifests) | _current(settings)
    busy = dict.fromkeys(store.claims.pipelines(), "something of it is being built") | runs
    return Needed(names=names, blobs=set(read_by_jobs(settings)), busy=busy, archive=is_shared(settings))


def is_shared(settings: Settings) -> bool:
    """Whether others may publish what is in this store: it is not in this home."""
    from ml_platform.store.filesystem import local_folder

    folder = local_folder(settings.store)
    return folder is None or not folder.resolve().is_relative_to(settings.home.resolve())


def _published(settings: Settings, instance: DagsterInstance, manifests: Collection[Manifest]) -> Names:
    """The latest materialization, or rejection, of every partition of every asset that has an artifact."""
    from ml_platform.stages.opening import events_of
    from ml_platform.stages.published import Published

    names: Names = set()
    events = events_of(settings, instance)
    for pipeline, stage in {(manifest.pipeline, manifest.stage) for manifest in manifests}:
        published = Published(events, pipeline)
        versions = {*published.versions(stage).values(), *published.rejections(stage).values()}
        names |= {(pipeline, name) for name in (*versions, published.fingerprint(stage)) if name}
    return names


def _registered(settings: Settings, store: Store, manifests: Collection[Manifest]) -> Names:
    """Whatever a version's tags name: its trained model, training set and evaluation; and the evaluations that
    decisions about it rest on.

    A model that was registered elsewhere, or in a registry that the settings no longer name, has an artifact that says
    so. That counts, unless this registry knows the model and has deleted the version.
    """
    from ml_platform.registry.inventory import inventory
    from ml_platform.registry.trail import decisions_of

    held = inventory(settings.mlflow)
    names = {(model, value) for model, tags in held.versions for value in tags.values()}
    for model in held.models & {manifest.pipeline for manifest in manifests}:
        for decision in decisions_of(store, model, settings.mlflow):
            if (model, decision.model) in names and decision.evidence.get("evaluation"):
                names.add((model, decision.evidence["evaluation"]))
    for manifest in manifests:
        registered = manifest.stage == "registered_model" and manifest.verdict != "rejected"
        if registered and (is_shared(settings) or manifest.pipeline not in held.models):
            names.add((manifest.pipeline, manifest.fingerprint))
    return names


def _current(settings: Settings) -> Names:
    """What the present code makes of what has landed, published or not, rejected too: so a plan says what it said."""
    from ml_platform.discovery import pipelines
    from ml_platform.stages import stages_of
    from ml_platform.stages.opening import chain_of

    names: Names = set()
    for pipeline in pipelines(settings).values():
        chain = chain_of(stages_of(pipeline), settings)
        chain.planning = True
        for stage in chain.stages:
            found = (status.manifest for status in chain.statuses(stage).values())
            names |= {(pipeline.name, manifest.fingerprint) for manifest in found if manifest is not None}
    return names


def running(instance: DagsterInstance) -> Iterator[tuple[str, str]]:
    """The pipelines of runs that are queued or in progress, "" for a run that may be of any; with the run, in words."""
    import dagster as dg

    status = dg.DagsterRunStatus
    going_on = [status.QUEUED, status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING]
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=going_on)):
        run = record.dagster_run
        told = f"run {run.run_id[:8]} since {record.create_timestamp:%Y-%m-%d %H:%M} UTC"
        if run.job_name.endswith("_chain"):
            yield run.job_name.removesuffix("_chain"), told
        else:
            yield from ((name, told) for name in {key.path[0] for key in run.asset_selection or ()} or {""})


def read_by_jobs(settings: Settings) -> Iterator[str]:
    """SHA-256 of the files that training jobs read, of those that run and those that may be taken up again."""
    for spec in jobs_folder(settings).glob("*/spec.json"):
        try:
            files = json.loads(spec.read_bytes())["files"]
        except (OSError, ValueError, KeyError) as error:
            raise SetupError(
                "A training job does not say which files it reads, so nothing was removed.",
                where=spec,
                got=error,
                fix="remove the job's folder, if it does not run",
            ) from error
        yield from (Path(file).name for file in files)


def jobs_folder(settings: Settings) -> Path:
    """Where training jobs of this machine keep their files."""
    return settings.home / "jobs"


def remove_finished_jobs(settings: Settings, manifests: Collection[Manifest], *, dry_run: bool) -> list[Garbage]:
    """Remove the folders of training jobs whose model is in the store, unless somebody has yet to take the result."""
    from ml_platform.launch.local import LocalLauncher

    committed = {manifest.fingerprint for manifest in manifests if trains(manifest.stage)}
    folder, sizes = jobs_folder(settings), []
    launcher = LocalLauncher(folder)
    for job in sorted(folder.iterdir()) if folder.is_dir() else ():
        if job.name in committed and job.is_dir():
            size = sum(path.lstat().st_size for path in job.rglob("*") if path.is_file())
            if dry_run or launcher.remove(job.name):
                sizes.append(size)
    what = "whose model is in the store"
    return [Garbage(kind="training jobs", what=what, count=len(sizes), bytes=sum(sizes))] if sizes else []
