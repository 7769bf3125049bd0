"""The calls that the launcher makes of a cluster, each tried again while the API server is away."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ml_platform.errors import SetupError, TrainingError
from ml_platform.settings import KubernetesSettings

MANAGED = {"app.kubernetes.io/managed-by": "ml-platform"}
"""The label of everything that is made here."""
JOB_LABEL = "batch.kubernetes.io/job-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_T = TypeVar("_T")
_TIMEOUT = (5, 30)
"""Seconds to connect, and to answer."""
_SILENCE = 60
"""Seconds without a line after which a log is asked for anew: its connection may be dead without a word."""
_ANSWERS = frozenset({400, 404, 409})
"""What the callers here know the meaning of: not ready, not there, there already."""
_TRY_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_KUEUE, _KUEUE_VERSIONS = "kueue.x-k8s.io", ("v1beta2", "v1beta1")


class AwayError(TrainingError):
    """The API server does not answer. What runs on the cluster goes on."""


class Cluster:
    """One namespace of a cluster, through the official client.

    Every method raises AwayError (`passing`) where the API server stays away for `patience_seconds`, and TrainingError
    where it refuses.

    Args:
        settings: which cluster, and how patient.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        import kubernetes

        self.namespace = settings.namespace
        self._patience = settings.patience_seconds
        configuration = kubernetes.client.Configuration()
        configuration.retries = False  # here it is known what may be tried again, and for how long
        _load(configuration, settings.kubeconfig, settings.context)
        api = kubernetes.client.ApiClient(configuration)
        self._batch, self._core = kubernetes.client.BatchV1Api(api), kubernetes.client.CoreV1Api(api)
        self._custom = kubernetes.client.CustomObjectsApi(api)

    def create_job(self, job: Any) -> Any | None:
        """Make a Job. None where there is one of that name."""
        return self._create(self._batch.create_namespaced_job, job)

    def create_service(self, service: Any) -> Any | None:
        """Make a Service. None where there is one of that name."""
        return self._create(self._core.create_namespaced_service, service)

    def job(self, name: str) -> Any | None:
        """A Job, if there is one."""
        return self._unless_gone(
            lambda: self._batch.read_namespaced_job(name, self.namespace, _request_timeout=_TIMEOUT)
        )

    def jobs(self) -> list[Any]:
        """Every Job that a launcher made."""
        selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
        found = self._call(
            lambda: self._batch.list_namespaced_job(self.namespace, label_selector=selector, _request_timeout=_TIMEOUT)
        )
        return list(found.items)

    def pods(self, job: str) -> list[Any]:
        """A Job's pods, by index, the oldest first."""
        found = self._call(
            lambda: self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{JOB_LABEL}={job}", _request_timeout=_TIMEOUT
            )
        )
        return sorted(found.items, key=lambda pod: (index_of(pod), pod.metadata.creation_timestamp))

    def events(self, name: str) -> list[Any]:
        """Events of one object, the oldest first."""
        found = self._call(
            lambda: self._core.list_namespaced_event(
                self.namespace, field_selector=f"involvedObject.name={name}", _request_timeout=_TIMEOUT
            )
        )
        return sorted(found.items, key=lambda e: e.last_timestamp or e.event_time or e.metadata.creation_timestamp)

    def no_quota(self, uid: str) -> str:
        """Why Kueue does not let the Job with that uid begin, in its words; "" where it says nothing, or where the
        launcher may not read its workloads."""
        import kubernetes

        for version in _KUEUE_VERSIONS:
            workloads = functools.partial(
                self._custom.list_namespaced_custom_object,
                _KUEUE,
                version,
                self.namespace,
                "workloads",
                label_selector=f"{_KUEUE}/job-uid={uid}",
                _request_timeout=_TIMEOUT,
            )
            try:
                found = self._call(workloads, answers=_ANSWERS | {403})
            except kubernetes.client.ApiException:  # no such version, no Kueue, or no right to read it
                continue
            conditions = [c for each in found["items"] for c in each.get("status", {}).get("conditions", ())]
            said = [c["message"] for c in conditions if (c["type"], c["status"]) == ("QuotaReserved", "False")]
            return str(said[0]) if said else ""
        return ""

    def annotate(self, job: str, changes: Mapping[str, str | None]) -> Any | None:
        """Change a Job's annotations; None removes one. Returns the Job, or None where there is none."""
        body = {"metadata": {"annotations": dict(changes)}}
        return self._unless_gone(
            lambda: self._batch.patch_namespaced_job(job, self.namespace, body, _request_timeout=_TIMEOUT)
        )

    def end(self, job: str, annotations: Mapping[str, str]) -> None:
        """Let a Job fail now, by a deadline that is over, and stay for whoever follows it to see why."""
        body = {"metadata": {"annotations": dict(annotations)}, "spec": {"activeDeadlineSeconds": 1}}
        self._unless_gone(
            lambda: self._batch.patch_namespaced_job(job, self.namespace, body, _request_timeout=_TIMEOUT)
        )

    def delete(self, job: str, uid: str) -> None:
        """Ask for the end of a Job and of all that it owns, unless it is another Job by now."""
        import kubernetes

        options = kubernetes.client.V1DeleteOptions(
            propagation_policy="Foreground", preconditions=kubernetes.client.V1Preconditions(uid=uid)
        )
        try:
            self._unless_gone(
                lambda: self._batch.delete_namespaced_job(job, self.namespace, body=options, _request_timeout=_TIMEOUT)
            )
        except kubernetes.client.ApiException as error:
            if error.status != 409:  # another one has its name: this one is gone
                raise

    def wait_until_gone(self, job: str, uid: str, poll_seconds: float) -> None:
        """Wait for a deleted Job and its pods to be gone."""
        while True:
            there = self.job(job)
            gone = there is None or there.metadata.uid != uid
            if gone and not any(uid == owner_of(pod) for pod in self.pods(job)):
                return
            time.sleep(poll_seconds)

    def log(self, pod: str, since_seconds: int | None) -> Any:
        """A pod's log as a stream that ends with the pod: urllib3's response. Not tried again here."""
        return self._core.read_namespaced_pod_log(
            pod,
            self.namespace,
            follow=True,
            timestamps=True,
            since_seconds=since_seconds,
            _preload_content=False,
            _request_timeout=(_TIMEOUT[0], _SILENCE),
        )

    def _create(self, create: Callable[..., Any], body: Any) -> Any | None:
        import kubernetes

        try:
            return self._call(lambda: create(self.namespace, body, _request_timeout=_TIMEOUT))
        except kubernetes.client.ApiException as error:
            if error.status == 409:
                return None
            raise

    def _unless_gone(self, call: Callable[[], _T]) -> _T | None:
        import kubernetes

        try:
            return self._call(call)
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def _call(self, call: Callable[[], _T], answers: frozenset[int] = _ANSWERS) -> _T:
        """Call, again and again while nobody answers. All calls here may be made twice: names make them so.
        A status among `answers` is raised as it is."""
        import kubernetes
        import urllib3

        begun, pause = time.monotonic(), 0.1
        while True:
            try:
                return call()
            except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                status: int | None = getattr(error, "status", None)
                if status in answers:
                    raise
                if status is not None and status not in _TRY_AGAIN:
                    raise _refusal(error, self.namespace) from error
                if time.monotonic() - begun >= self._patience:
                    raise AwayError(
                        "The Kubernetes API server does not answer.",
                        where=self._batch.api_client.configuration.host,
                        got=f"{type(error).__name__}: {error}",
                        fix="see whether it is up and reached from here; the job goes on, and the next run joins it",
                        passing=True,
                    ) from error
            time.sleep(pause)
            pause = min(5.0, pause * 2)


def _refusal(error: Any, namespace: str) -> TrainingError:
    try:
        said = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        said = error.body
    fixes = {
        401: "log in to the cluster anew, or correct the kubeconfig",
        403: "give the launcher's user a role as in docs/kubernetes.md; or the namespace's quota or policy refuses",
        422: "correct `container` in ML_PLATFORM_KUBERNETES, or the run's dagster-k8s/config",
    }
    return TrainingError(
        "Kubernetes refuses.", where=f"namespace {namespace}", got=f"{error.status} {said}", fix=fixes.get(error.status)
    )


def index_of(pod: Any) -> int:
    """A pod's place in its Job."""
    return int((pod.metadata.labels or {}).get(INDEX_LABEL, 0))


def owner_of(pod: Any) -> str:
    """The uid of the Job that made a pod; "" without one."""
    return next((str(owner.uid) for owner in pod.metadata.owner_references or () if owner.controller), "")


def _load(configuration: Any, path: str, context: str) -> None:
    """As kubectl does: the kubeconfig where there is one; else, in a pod, its service account."""
    import kubernetes

    errors = []
    try:
        kubernetes.config.load_kube_config(path or None, context or None, client_configuration=configuration)
        return
    except kubernetes.config.ConfigException as error:
        errors.append(str(error))
    if not path and not context:
        try:
            kubernetes.config.load_incluster_config(client_configuration=configuration)
            return
        except kubernetes.config.ConfigException as error:
            errors.append(str(error))
    raise SetupError(
        "There is no cluster to train on.",
        where="ML_PLATFORM_LAUNCHER=kubernetes",
        got="; ".join(errors),
        fix="set KUBECONFIG, or run inside the cluster with a service account that may make Jobs",
    )
