"""The rules of the Job controller, for Indexed Jobs with a pod failure policy
(https://kubernetes.io/docs/concepts/workloads/controllers/job/): completion, back-off, policy, conditions, deadline,
suspension, time to live, and foreground deletion. Pods that were counted stay; those of a failed Job that still ran
are deleted.
"""

from __future__ import annotations

import time
import uuid

from ml_platform_tests.launch.api_server.objects import Object, Objects, condition, now, set_condition
from ml_platform_tests.launch.api_server.rules import not_restricted

INDEX = "batch.kubernetes.io/job-completion-index"


class JobController:
    """Makes the pods of Jobs.

    Args:
        objects: what there is.
        backoff: seconds after the first failure; ten in Kubernetes. Twice as long after each further one.
    """

    def __init__(self, objects: Objects, backoff: float) -> None:
        self._objects, self._backoff = objects, backoff
        self._counted: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._finished: dict[str, float] = {}

    def sync(self, job: Object) -> None:
        """Bring a Job one step on."""
        meta, spec = job["metadata"], job["spec"]
        status = job.setdefault("status", {})
        pods = [p for p in self._objects.all("pods", meta["namespace"]) if _owner(p) == meta["uid"]]
        self._count(job, pods)
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"] and _ended(pod):
                self._objects.remove("pods", pod)
        active = [p for p in pods if not _ended(p)]
        status |= {"active": len(active), "failed": status.get("failed", 0)}
        if "deletionTimestamp" in meta:
            self._delete(pods)
            if not pods:
                self._remove(job)
        elif condition(job, "Complete") or condition(job, "Failed"):
            ttl = spec.get("ttlSecondsAfterFinished")
            if ttl is not None and time.monotonic() - self._finished.setdefault(meta["uid"], time.monotonic()) > ttl:
                meta["deletionTimestamp"] = now()
        elif failing := condition(job, "FailureTarget"):
            self._delete(active)
            if not active:
                set_condition(job, "Failed", failing["reason"], failing["message"])
                status["completionTime"] = now()
        elif spec.get("suspend"):
            self._delete(active)
            self._started.pop(meta["uid"], None)
            status.pop("startTime", None)
            set_condition(job, "Suspended", "JobSuspended", "Job suspended")
        else:
            self._run(job, pods)
        self._objects.touch(job)

    def _run(self, job: Object, pods: list[Object]) -> None:
        meta, spec, status = job["metadata"], job["spec"], job["status"]
        uid = meta["uid"]
        begun = self._started.setdefault(uid, time.monotonic())
        status.setdefault("startTime", now())
        done = {_index(p) for p in pods if p["status"]["phase"] == "Succeeded"}
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and time.monotonic() - begun > deadline:
            set_condition(job, "FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
        elif status["failed"] > spec["backoffLimit"]:
            message = "Job has reached the specified backoff limit"
            set_condition(job, "FailureTarget", "BackoffLimitExceeded", message)
        elif len(done) == spec["completions"]:
            set_condition(job, "SuccessCriteriaMet", "CompletionsReached", "")
            set_condition(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            status |= {"completionTime": now(), "succeeded": len(done)}
        elif time.monotonic() >= self._not_before.get(uid, 0):
            there = {_index(p) for p in pods if not _ended(p)}
            for index in range(spec["completions"]):
                if index not in there | done:
                    self._make(job, index)

    def _count(self, job: Object, pods: list[Object]) -> None:
        """Decide about pods that have ended since the last time."""
        for pod in pods:
            if pod["status"]["phase"] != "Failed" or pod["metadata"]["uid"] in self._counted:
                continue
            self._counted.add(pod["metadata"]["uid"])
            uid = job["metadata"]["uid"]
            if condition(job, "FailureTarget") or "deletionTimestamp" in job["metadata"] or job["spec"].get("suspend"):
                continue  # ended by this controller
            action, message = _decide(job, pod)
            if action == "FailJob":
                set_condition(job, "FailureTarget", "PodFailurePolicy", message)
            elif action == "Count":
                failed = job["status"]["failed"] = job["status"].get("failed", 0) + 1
                self._not_before[uid] = time.monotonic() + self._backoff * 2 ** min(failed - 1, 4)

    def _make(self, job: Object, index: int) -> None:
        meta, template = job["metadata"], job["spec"]["template"]
        if refused := list(not_restricted(template["spec"])):
            message = (
                f'Error creating: pods is forbidden: violates PodSecurity "restricted:latest": {", ".join(refused)}'
            )
            if not self._objects.all("events", meta["namespace"]):
                self._objects.event(job, "FailedCreate", message)
            return
        labels = {
            **template.get("metadata", {}).get("labels", {}),
            "batch.kubernetes.io/job-name": meta["name"],
            "batch.kubernetes.io/controller-uid": meta["uid"],
            INDEX: str(index),
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        pod = {
            "metadata": {
                "name": f"{meta['name']}-{index}-{uuid.uuid4().hex[:5]}",
                "labels": labels,
                "annotations": {INDEX: str(index)},
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self._objects.create("pods", meta["namespace"], pod)

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            pod["metadata"].setdefault("deletionTimestamp", now())

    def _remove(self, job: Object) -> None:
        for service in self._objects.all("services", job["metadata"]["namespace"]):
            if _owner(service) == job["metadata"]["uid"]:
                self._objects.remove("services", service)
        self._objects.remove("jobs", job)


def _decide(job: Object, pod: Object) -> tuple[str, str]:
    """What the pod failure policy says of a pod: the first rule that fits."""
    states = {s["name"]: s["state"].get("terminated", {}) for s in pod["status"].get("containerStatuses", ())}
    for number, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", ())):
        if codes := rule.get("onExitCodes"):
            code = states.get(codes["containerName"], {}).get("exitCode")
            fits = code not in (None, 0) and (code in codes["values"]) == (codes["operator"] == "In")
            what = f"exit code {code}"
        else:
            fits = any(condition(pod, each["type"]) is not None for each in rule["onPodConditions"])
            what = "a condition"
        if fits:
            name = pod["metadata"]["name"]
            return rule["action"], f"Container of pod {name} failed with {what} matching {rule['action']} rule {number}"
    return "Count", ""


def _owner(body: Object) -> str:
    return next((str(o["uid"]) for o in body["metadata"].get("ownerReferences", ())), "")


def _ended(pod: Object) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def _index(pod: Object) -> int:
    return int(pod["metadata"]["labels"][INDEX])
