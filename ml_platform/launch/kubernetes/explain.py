"""What a Job waits for, and why it ended, from what Kubernetes knows of it and its pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ml_platform.errors import TrainingError
from ml_platform.launch import failure
from ml_platform.launch.kubernetes import codes
from ml_platform.launch.kubernetes.cluster import Cluster, index_of
from ml_platform.launch.kubernetes.manifests import CONTAINER, ENDED, PIPELINE

NO_PODS = "for its pods to be made"
_NOT_PULLED = "its image cannot be pulled"
_STUCK = {
    "ImagePullBackOff": _NOT_PULLED,
    "ErrImagePull": _NOT_PULLED,
    "ErrImageNeverPull": "its image is not on the node and must not be pulled",
    "InvalidImageName": "its image has an invalid name",
    "CreateContainerConfigError": "a Secret, ConfigMap or setting that it names is missing or wrong",
    "CreateContainerError": "its container cannot be made",
    "CrashLoopBackOff": "its container ends again and again",
}
_MEANINGS = {
    codes.PREEMPTED: "ended from outside: preempted, evicted, or a rank was killed",
    codes.PEER_LOST: "another pod was lost, and it could not go on alone",
}
_NEEDED_FIX = {
    "OOMKilled": "raise the memory limit in `resources`, or lower Recipe.batch_size or memory_mib",
    "DeadlineExceeded": "raise deadline_seconds in ML_PLATFORM_KUBERNETES, or train less",
    "Image": "correct `image` in ML_PLATFORM_KUBERNETES, or its image_pull_secrets",
    "Secret": "make what is missing, or correct `container` in ML_PLATFORM_KUBERNETES; then train again",
}


def waits_for(job: Any, pods: Sequence[Any], cluster: Cluster, queue: str) -> str:
    """What a Job that does not train waits for, in words; "" where all its pods run."""
    if job.spec.suspend:
        if not queue:
            return "it is suspended"
        said = cluster.no_quota(job.metadata.uid)
        return f"for quota of Kueue's queue {queue}" + (f": {said}" if said else "")
    reasons = [reason for pod in _newest(pods) if (reason := _pod_waits_for(pod))]
    if reasons:
        return "; ".join(reasons)
    if len([pod for pod in _newest(pods) if pod.status.phase != "Failed"]) < job.spec.parallelism:
        refused = [event for event in cluster.events(job.metadata.name) if event.reason == "FailedCreate"]
        return f"no pod can be made: {refused[-1].message}" if refused and not pods else NO_PODS
    return ""


def _pod_waits_for(pod: Any) -> str:
    if pod.status.phase != "Pending" or pod.metadata.deletion_timestamp is not None:
        return ""
    who = f"pod {index_of(pod)}"
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{who} cannot be scheduled: {condition.message or condition.reason}"
    return f"{who}: {said}" if (said := stuck(pod)[1]) else f"{who} starts"


def stuck(pod: Any) -> tuple[str, str]:
    """Why a pod that has a node does not start: Kubernetes' reason, and in words. Empty where it may yet start."""
    if pod.status.phase == "Pending":
        for status in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
            waiting = status.state.waiting if status.state else None
            if waiting is not None and waiting.reason in _STUCK:
                words = f"{_STUCK[waiting.reason]} ({waiting.reason}): {waiting.message or status.image}"
                return waiting.reason, words
    return "", ""


def condition(job: Any, kind: str) -> Any | None:
    """A condition of a Job that holds."""
    return next((c for c in job.status.conditions or () if c.type == kind and c.status == "True"), None)


def why_failed(job: Any, pods: Sequence[Any], tail: Sequence[str], waited: str) -> TrainingError:
    """The error of a Job that failed. The first failing rank's traceback stands on top, the last lines of every pod
    below it.

    Args:
        job: with a condition Failed.
        pods: those that are left of it.
        tail: the last lines of every pod.
        waited: what it was last seen waiting for.
    """
    failed = condition(job, "Failed")
    reason, said = (failed.reason or "", failed.message or "") if failed else ("", "")
    ended = [pod for pod in pods if (state := _terminated(pod)) is not None and state.exit_code != 0]
    where = f"{(job.metadata.annotations or {}).get(PIPELINE, '')}, Job {job.metadata.name} in {job.metadata.namespace}"
    if ended_for := (job.metadata.annotations or {}).get(ENDED):
        return TrainingError(
            "The training job cannot start, and was ended.",
            where=where,
            got=_got(ended_for, tail),
            fix=_NEEDED_FIX["Image" if "its image" in ended_for else "Secret"],
            passing=False,
        )
    if reason == "DeadlineExceeded":
        return TrainingError(
            "The training job took longer than it may.",
            where=where,
            got=_got(f"{said}; it last waited: {waited}" if waited else said, tail),
            fix=_NEEDED_FIX["Image"] if "image" in waited else _NEEDED_FIX[reason],
            passing=False,
        )
    found = [(pod, words) for pod in ended if (words := last_words(pod))]
    found.sort(key=lambda item: (item[1]["consequence"], item[1]["time"]))
    own = [item for item in found if not item[1]["consequence"]]
    killed = [pod for pod in ended if _terminated(pod).reason == "OOMKilled"]
    if killed and not any(int(words["exit_code"]) > 0 for _, words in own):
        return TrainingError(
            f"Training failed: pod {index_of(killed[0])} ran out of memory (OOMKilled).",
            where=where,
            got=_got(said, tail),
            fix=_NEEDED_FIX["OOMKilled"],
            passing=True,
        )
    if own:
        pod, words = own[-1] if _budget_is_gone(reason) else own[0]
        error = failure.told(f"{where}, pod {index_of(pod)}", [words], tail, int(words["exit_code"]))
        if not _budget_is_gone(reason):
            return error
        return _lost_too_often(error.what, where, said, tail)
    lost = "; ".join(f"pod {index_of(pod)} {_meaning(pod)}" for pod in ended[-4:])
    if _budget_is_gone(reason):
        return _lost_too_often(lost or "its pods are gone", where, said, tail)
    what = f"The training job failed: {lost or said or waited or 'no reason is known'}"
    return TrainingError(what, where=where, got=_got(said, tail), passing=False)


def last_words(pod: Any) -> dict[str, Any]:
    """The failure that a pod told of in its termination message; nothing where it could not."""
    state = _terminated(pod)
    try:
        found: dict[str, Any] = json.loads(state.message)["failures"][0]
    except (TypeError, ValueError, KeyError, IndexError):
        return {}
    return found


def _lost_too_often(last: str, where: str, said: str, tail: Sequence[str]) -> TrainingError:
    return TrainingError(
        f"The training job was ended from outside more often than its budget allows. The last time: {last}",
        where=where,
        got=_got(said, tail),
        fix="find out what ends it (memory, preemption, nodes going down), or raise Recipe.restarts",
        passing=True,
    )


def _budget_is_gone(reason: str) -> bool:
    return reason == "BackoffLimitExceeded"


def _meaning(pod: Any) -> str:
    state = _terminated(pod)
    disrupted = [c for c in pod.status.conditions or () if c.type == "DisruptionTarget" and c.status == "True"]
    if disrupted:
        return f"was disrupted ({disrupted[0].reason}): {disrupted[0].message or 'no message'}"
    code = int(state.exit_code)
    if code in _MEANINGS:
        return f"ended with exit code {code} ({_MEANINGS[code]})"
    message = f": {state.message.splitlines()[-1]}" if state.message else ""
    return failure.meaning(code) + (f" [{state.reason}]" if state.reason not in (None, "Error") else "") + message


def _terminated(pod: Any) -> Any:
    """How a pod's container ended; None where it has not."""
    for status in pod.status.container_statuses or ():
        if status.name == CONTAINER and status.state and status.state.terminated:
            return status.state.terminated
    return None


def _newest(pods: Sequence[Any]) -> list[Any]:
    """The newest pod of each index."""
    return list({index_of(pod): pod for pod in pods}.values())


def _got(said: str, tail: Sequence[str]) -> str:
    return said + "".join(f"\n    {line}" for line in tail)
