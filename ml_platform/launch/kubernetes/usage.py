"""What the pods of a Job take, by the kubelet's own times: so it counts also while nobody follows the Job."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ml_platform.launch.kubernetes.manifests import CONTAINER, gpus_of
from ml_platform.launch.staging import Staging
from ml_platform.launch.used import Meter, Used


def meter(staging: Staging) -> Meter:
    """Counts what a job takes; kept in the store, since a Job does not stay for good."""
    return Meter(staging.used(), staging.keep_used)


def counted(used: Used, job: Any, pods: Sequence[Any]) -> Used:
    """What was used, and what the pods have taken since.

    A Job runs for as long as its pods do, on average: one that waits for a node while others hold theirs takes nothing,
    they do. A pod that was deleted counts up to the last look at it.

    Args:
        used: as counted before, by whoever.
        job: a Job of that name.
        pods: all of its pods that there are, those that have ended too.
    """
    now = time.time()
    seconds = sum(_ran(pod, used.until, now) for pod in pods) / max(1, int(job.spec.parallelism))
    return used.plus(seconds, gpus_of(job), until=max(now, used.until))


def _ran(pod: Any, since: float, now: float) -> float:
    """For how many seconds a pod's container ran in that time."""
    for status in pod.status.container_statuses or ():
        state = status.state and (status.state.running or status.state.terminated)
        if status.name == CONTAINER and state and state.started_at:
            ended = getattr(state, "finished_at", None)
            until = min(now, ended.timestamp()) if ended else now
            return max(0.0, until - max(since, float(state.started_at.timestamp())))
    return 0.0
