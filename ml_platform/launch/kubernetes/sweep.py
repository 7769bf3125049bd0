"""Jobs that nobody wants any more, and what jobs that are over have left in the store: found, and removed.

A running Job is wanted by whoever follows it; by a run of its pipeline, which will join it; and for a while by itself,
because whoever launched it may have died, and the next run takes it up. Finished Jobs remove themselves.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from ml_platform.launch.kubernetes import explain, followers, manifests, usage
from ml_platform.launch.kubernetes.cluster import Cluster, owner_of
from ml_platform.launch.staging import SPEC, Staging, remove
from ml_platform.settings import KubernetesSettings
from ml_platform.store import Store, layout

UNWANTED_SECONDS = 120.0
"""How long a Job that nobody follows is left when its fingerprint is nobody's any more."""
FORGOTTEN_SECONDS = 7 * 24 * 3600.0
"""How long a job that did not end well keeps its checkpoints for somebody to go on from."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """Something that was removed, or would be: the Job or the folder, whose it was, and why."""

    what: str
    pipeline: str
    why: str


def sweep_jobs(
    cluster: Cluster,
    settings: KubernetesSettings,
    store: Store,
    *,
    running: Callable[[str], bool],
    wanted: Callable[[str], Collection[str] | None],
    dry_run: bool = False,
) -> Iterator[Swept]:
    """Remove running Jobs that nobody wants; what they have taken is kept. Does not wait for their end.

    Args:
        cluster: where they are.
        settings: how long one is left alone.
        store: where their files are.
        running: whether a Dagster run of that pipeline goes on.
        wanted: the names of the jobs that the pipeline would train now; None where that is not known.
        dry_run: only say.
    """
    for job in cluster.jobs():
        over = explain.condition(job, "Complete") or explain.condition(job, "Failed")
        annotations = job.metadata.annotations or {}
        name, pipeline = annotations.get(manifests.NAME), annotations.get(manifests.PIPELINE, "")
        if over or job.metadata.deletion_timestamp or name is None or followers.fresh(followers.marks(job)):
            continue
        if running(pipeline):
            continue
        idle = (dt.datetime.now(dt.UTC) - followers.last_wanted(job)).total_seconds()
        if idle > settings.abandoned_seconds:
            why = f"nobody has followed it for {idle / 60:.0f} minutes"
        elif idle > UNWANTED_SECONDS and (names := wanted(pipeline)) is not None and name not in names:
            why = "the pipeline would train another model now"
        else:
            continue
        if not dry_run:
            meter = usage.meter(Staging(store, layout.job(name, annotations[manifests.SPEC_HASH])))
            pods = [pod for pod in cluster.pods(job.metadata.name) if owner_of(pod) == job.metadata.uid]
            meter.count(usage.counted(meter.used, job, pods))
            meter.keep()
            cluster.delete(job.metadata.name, job.metadata.uid)
        yield Swept(what=f"Job {job.metadata.name}", pipeline=pipeline, why=why)


def sweep_store(
    cluster: Cluster, store: Store, *, trains: Callable[[str], Collection[str]], dry_run: bool = False
) -> Iterator[Swept]:
    """Remove from the store what jobs have kept there whose model was committed, or that nobody took up for a week.

    Args:
        cluster: where the jobs are.
        store: where their files are.
        trains: names of the stages of a pipeline that train.
        dry_run: only say.
    """
    there = {(job.metadata.annotations or {}).get(manifests.NAME) for job in cluster.jobs()}
    folders: dict[tuple[str, str], float] = {}
    for path, stamp in store.backend.scan(layout.JOBS).items():
        _, name, specification, *_ = path.split("/")
        folders[name, specification] = max(folders.get((name, specification), 0.0), stamp.modified)
    for (name, specification), modified in folders.items():
        folder = layout.job(name, specification)
        pipeline = _pipeline(store, f"{folder}/{SPEC}")
        if name in there:
            continue
        if pipeline and any(store.find(pipeline, stage, name) is not None for stage in trains(pipeline)):
            why = "its model is in the store"
        elif time.time() - modified > FORGOTTEN_SECONDS:
            why = "nobody took it up for a week"
        else:
            continue
        if not dry_run:
            remove(store, folder)
        yield Swept(what=f"files of job {name}", pipeline=pipeline, why=why)


def _pipeline(store: Store, path: str) -> str:
    """Whose job it is; "" where that is not known."""
    record: Any = store.backend.read_many([path]).get(path)
    return str(json.loads(record)["job"]["pipeline"]) if record else ""
