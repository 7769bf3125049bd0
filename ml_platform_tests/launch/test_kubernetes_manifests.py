"""What is asked of a cluster: known to every version of Kubernetes that is in use, and `restricted`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_validate
import pytest
from dagster_k8s.container_context import K8sContainerContext

from ml_platform.errors import TrainingError
from ml_platform.launch.kubernetes import codes
from ml_platform.launch.kubernetes.manifests import job_manifest, object_name, service_manifest
from ml_platform.launch.kubernetes.pod import last_words
from ml_platform.settings import KubernetesSettings
from ml_platform.training.config import TrainingJob
from ml_platform_tests.launch.api_server.rules import not_restricted, wrong_job
from ml_platform_tests.training import made

VERSIONS = ["1.31", "1.33", "1.35", "1.36", "1.37"]


@pytest.fixture
def job(paths: list[str]) -> TrainingJob:
    return made.job(paths, processes=4, restarts=2)


def manifests(job: TrainingJob, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Job and its Service, as they are sent."""
    settings = KubernetesSettings(**{"image": "project:1", "queue": "q", "scheduler": "s", **changes})
    made = job_manifest(
        "f" * 32, job, "jobs/f/s", store="s3://b", settings=settings, team=K8sContainerContext(), env={"A": "1"}
    )
    client = kubernetes.client.ApiClient(kubernetes.client.Configuration())
    sent = client.sanitize_for_serialization(made)
    made.metadata.uid = "u"
    return sent, client.sanitize_for_serialization(service_manifest(made))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_knows_what_is_asked(version: str, job: TrainingJob) -> None:
    for manifest in manifests(job):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_field_that_no_version_knows_would_be_found(job: TrainingJob) -> None:
    manifest, _ = manifests(job)
    manifest["spec"]["template"]["spec"]["containers"][0]["memory"] = "2Gi"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_pods_are_restricted_and_cannot_write_but_to_scratch(job: TrainingJob) -> None:
    manifest, _ = manifests(job)
    pod = manifest["spec"]["template"]["spec"]
    assert list(not_restricted(pod)) == []
    main = pod["containers"][0]
    assert main["securityContext"]["readOnlyRootFilesystem"] is True
    assert main["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch"}]
    assert pod["volumes"] == [{"name": "scratch", "emptyDir": {}}]
    assert pod["automountServiceAccountToken"] is False
    del main["securityContext"]["capabilities"]
    assert list(not_restricted(pod)) == ["train: capabilities.drop lacks ALL"]


def test_the_jobs_rules_are_those_of_a_gang_with_a_budget(job: TrainingJob) -> None:
    manifest, _ = manifests(job, processes_per_pod=2)
    assert list(wrong_job(manifest)) == []
    spec = manifest["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["backoffLimit"] == 4  # twice, both
    assert spec["suspend"] is True
    assert spec["template"]["spec"]["subdomain"] == manifest["metadata"]["name"]
    assert "hostname" not in spec["template"]["spec"]
    count, passing, fatal = spec["podFailurePolicy"]["rules"]
    assert count["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert codes.PREEMPTED in passing["onExitCodes"]["values"]
    assert 1 not in passing["onExitCodes"]["values"]
    assert fatal["action"] == "FailJob"


def test_ranks_fill_pods_evenly(job: TrainingJob) -> None:
    with pytest.raises(TrainingError, match="do not fill pods evenly"):
        manifests(job, processes_per_pod=3)


def test_an_image_is_needed(job: TrainingJob) -> None:
    with pytest.raises(TrainingError, match="no image"):
        manifests(job, image="")


@pytest.mark.parametrize("name", ["f" * 32, "a", "Bönn".replace("ö", "o"), "x_y.z", "n" * 100, "0" * 64])
def test_names_are_dns_labels_with_room_for_a_pods_suffix(name: str) -> None:
    assert len(object_name(name)) <= 50
    assert (
        list(wrong_job({"metadata": {"name": object_name(name)}, "spec": {"completions": 1000, "template": {}}})) == []
    )


def test_names_that_differ_stay_different() -> None:
    assert len({object_name(name) for name in ("a.b", "a-b", "a_b", "A-b", "n" * 100, "n" * 101)}) == 6


@pytest.mark.parametrize("length", [10, 5000, 100_000])
def test_last_words_fit_and_keep_the_end_of_a_traceback(length: int, tmp_path: Path) -> None:
    failure = {"rank": 1, "exit_code": 1, "message": "é" * length, "traceback": "\n" * length + "the cause"}
    text = last_words([failure, failure])
    assert len(text) <= codes.TERMINATION_BYTES
    assert b"the cause" in text
    assert b'"more": 1' in text
