"""What only a real cluster can answer: its kubelet's and its controllers' own words, evictions, and a launcher that
dies. Run by `pytest -m cluster` (see docs/kubernetes.md); `test_launcher` runs there too."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ml_platform import launch
from ml_platform.errors import TrainingError
from ml_platform.launch import State
from ml_platform.launch.kubernetes.cluster import index_of
from ml_platform.launch.kubernetes.manifests import object_name
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.result import FolderResult
from ml_platform_tests.launch.backends import Kubernetes, real
from ml_platform_tests.launch.conftest import wait_until
from ml_platform_tests.launch.test_launcher import same_bytes, slow, trouble
from ml_platform_tests.training import made

pytestmark = pytest.mark.cluster
MARK = secrets.token_hex(3)
"""Part of every name: a real cluster may hold jobs of an earlier round."""
KUEUE = ("kueue.x-k8s.io", "v1beta1")
_LAUNCHING = """
import sys
from pathlib import Path
from ml_platform import launch
from ml_platform.training.config import TrainingJob
from ml_platform_tests.launch.backends import real
job = TrainingJob.from_json(Path(sys.argv[3]).read_bytes())
with real(Path(sys.argv[1])) as backend:
    launch.run(backend.launcher, name=sys.argv[2], job=job, log=lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    with real(tmp_path_factory.mktemp("work")) as backend:
        yield backend


@pytest.fixture(scope="module")
def here(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> FolderResult:
    """The job of these tests as this machine trains it."""
    return launch.run(LocalLauncher(tmp_path_factory.mktemp("here")), name="here", job=slow(paths))


def core() -> Any:
    import kubernetes

    return kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())


def with_container(cluster: Kubernetes, **config: Any) -> dict[str, Any]:
    """The settings' `container`, with a container that is configured otherwise."""
    return {**cluster.launcher.settings.container, "run_k8s_config": {"container_config": config}}


def pods(cluster: Kubernetes, name: str) -> list[Any]:
    return [pod for pod in cluster.launcher.cluster.pods(object_name(name)) if pod.metadata.deletion_timestamp is None]


@dataclass
class Queue:
    """A queue of Kueue's with quota for the CPUs of pods that ask for them."""

    name: str
    namespace: str
    api: Any

    def make(self) -> None:
        """Make it, with quota for nothing."""
        kueue, spec = {"apiVersion": f"{KUEUE[0]}/{KUEUE[1]}"}, {"metadata": {"name": self.name}}
        quota = {"flavors": [{"name": self.name, "resources": [{"name": "cpu", "nominalQuota": "0"}]}]}
        groups = [{"coveredResources": ["cpu"], **quota}]
        self.api.create_cluster_custom_object(*KUEUE, "resourceflavors", {**kueue, "kind": "ResourceFlavor", **spec})
        all_of_it = {"kind": "ClusterQueue", **spec, "spec": {"namespaceSelector": {}, "resourceGroups": groups}}
        self.api.create_cluster_custom_object(*KUEUE, "clusterqueues", {**kueue, **all_of_it})
        local = {**kueue, "kind": "LocalQueue", **spec, "spec": {"clusterQueue": self.name}}
        self.api.create_namespaced_custom_object(*KUEUE, self.namespace, "localqueues", local)

    def change(self, **spec: Any) -> None:
        self.api.patch_cluster_custom_object(*KUEUE, "clusterqueues", self.name, {"spec": spec})

    def give(self, cpus: str) -> None:
        there = self.api.get_cluster_custom_object(*KUEUE, "clusterqueues", self.name)
        groups = there["spec"]["resourceGroups"]
        groups[0]["flavors"][0]["resources"][0]["nominalQuota"] = cpus
        self.change(resourceGroups=groups)

    def remove(self) -> None:
        self.api.delete_namespaced_custom_object(*KUEUE, self.namespace, "localqueues", self.name)
        self.api.delete_cluster_custom_object(*KUEUE, "clusterqueues", self.name)
        self.api.delete_cluster_custom_object(*KUEUE, "resourceflavors", self.name)


@pytest.fixture
def queue(cluster: Kubernetes) -> Iterator[Queue]:
    from kubernetes import client, config

    api = client.CustomObjectsApi(config.new_client_from_config())
    queue = Queue(f"ml-platform-{secrets.token_hex(3)}", cluster.launcher.settings.namespace, api)
    try:
        queue.make()
    except client.ApiException as error:
        if error.status == 404:
            pytest.skip("There is no Kueue on this cluster.")
        raise
    yield queue
    queue.remove()


def are_the_same(result: FolderResult, here: FolderResult) -> None:
    """Bytes, where the processor is of the same kind."""
    assert result.history["topology"] == here.history["topology"], "run this on the node's own kind of machine"
    assert same_bytes(result, here)


@pytest.mark.parametrize(
    ("container", "told"),
    [
        ({"resources": {"requests": {"cpu": "99"}}}, "cannot be scheduled: 0/"),
        ({"image": "no-such.invalid/typo:1"}, "its image cannot be pulled"),
        ({"security_context": {"allow_privilege_escalation": True}}, "no pod can be made"),
        ({"env_from": [{"secret_ref": {"name": "no-such-secret"}}]}, 'secret "no-such-secret" not found'),
    ],
)
def test_what_a_job_waits_for_is_told_and_stands_in_the_error_when_its_time_is_over(
    cluster: Kubernetes, paths: list[str], tmp_path: Path, container: dict[str, Any], told: str
) -> None:
    name = f"stuck-{secrets.token_hex(3)}"
    seen: set[str] = set()
    with (
        real(tmp_path, container=with_container(cluster, **container), deadline_seconds=20) as stuck,
        pytest.raises(TrainingError) as caught,
    ):
        launch.run(stuck.launcher, name=name, job=made.job(paths), on_status=lambda status: seen.add(status.detail))
    assert [detail for detail in seen if told in detail]
    assert told in str(caught.value)
    assert not caught.value.passing


@pytest.mark.parametrize(
    ("container", "told"),
    [
        ({"image": "no-such.invalid/typo:1"}, "its image cannot be pulled"),
        ({"image": "No Such Name"}, "(InvalidImageName)"),
        ({"env_from": [{"secret_ref": {"name": "no-such-secret"}}]}, 'secret "no-such-secret" not found'),
    ],
)
def test_a_job_whose_pods_cannot_start_is_given_up_long_before_its_deadline(
    cluster: Kubernetes, paths: list[str], tmp_path: Path, container: dict[str, Any], told: str
) -> None:
    with (
        real(tmp_path, container=with_container(cluster, **container), image_pull_seconds=5.0) as stuck,
        pytest.raises(TrainingError, match="cannot start, and was ended") as caught,
    ):
        launch.run(stuck.launcher, name=f"hopeless-{secrets.token_hex(3)}", job=made.job(paths))
    assert told in str(caught.value)
    assert not caught.value.passing


def test_a_pod_without_memory_is_explained(cluster: Kubernetes, paths: list[str], tmp_path: Path) -> None:
    container = with_container(cluster, resources={"limits": {"memory": "40Mi"}})
    with (
        real(tmp_path, container=container) as small,
        pytest.raises(TrainingError, match="ran out of memory") as caught,
    ):
        launch.run(small.launcher, name=f"big-{MARK}", job=made.job(paths, restarts=0))
    assert "memory limit" in str(caught.value)


def test_an_evicted_pod_takes_a_checkpoint_and_the_job_keeps_its_bytes(
    cluster: Kubernetes, paths: list[str], here: FolderResult
) -> None:
    from kubernetes import client

    name = f"evicted-{MARK}"
    lines: list[str] = []

    def disturb(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 8/20") and not any("goes on from a checkpoint" in each for each in lines):
            (pod,) = [each for each in pods(cluster, name) if index_of(each) == 1]
            body = client.V1Eviction(metadata=client.V1ObjectMeta(name=pod.metadata.name))
            core().create_namespaced_pod_eviction(pod.metadata.name, pod.metadata.namespace, body)

    # As rarely as it may be: what is there afterwards was taken because of the eviction.
    job = trouble(paths, "slow", epochs=20, checkpoint_seconds=3600)
    result = launch.run(cluster.launcher, name=name, job=job, log=disturb)
    assert any("goes on from a checkpoint" in line for line in lines)
    are_the_same(result, here)


def test_a_job_that_was_deleted_by_hand_goes_on_from_its_checkpoint(
    cluster: Kubernetes, paths: list[str], here: FolderResult
) -> None:
    name = f"deleted-{MARK}"
    lines: list[str] = []
    seen: list[State] = []

    def disturb(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 12/20") and State.LOST not in seen:
            job = cluster.launcher.cluster.job(object_name(name))
            cluster.launcher.cluster.delete(object_name(name), job.metadata.uid)

    result = launch.run(
        cluster.launcher, name=name, job=slow(paths), log=disturb, on_status=lambda status: seen.append(status.state)
    )
    assert State.LOST in seen
    assert any("goes on from a checkpoint" in line for line in lines)
    are_the_same(result, here)


def test_a_job_waits_for_kueues_quota_and_goes_on_after_it_was_taken_away(
    cluster: Kubernetes, queue: Queue, paths: list[str], here: FolderResult, tmp_path: Path
) -> None:
    container = with_container(cluster, resources={"requests": {"cpu": "100m"}})
    lines: list[str] = []
    seen: list[launch.Status] = []

    def follow(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 8/20"):
            queue.change(stopPolicy="HoldAndDrain")

    def look(status: launch.Status) -> None:
        seen.append(status)
        if "insufficient quota for cpu" in status.detail:
            queue.give("1")
        elif f"for quota of Kueue's queue {queue.name}: ClusterQueue" in status.detail:  # it is stopped
            queue.change(stopPolicy="None")

    # As rarely as it may be: what is there afterwards was taken because of Kueue. No restarts: it costs none.
    job = trouble(paths, "slow", epochs=20, checkpoint_seconds=3600, restarts=0)
    with real(tmp_path, container=container, queue=queue.name) as queued:
        result = launch.run(queued.launcher, name=f"queued-{MARK}", job=job, log=follow, on_status=look)
    states = [state for state, _ in itertools.groupby(status.state for status in seen)]
    assert states[:4] == [State.WAITING, State.RUNNING, State.WAITING, State.RUNNING]
    assert not any(status.restarts for status in seen)
    assert any("goes on from a checkpoint" in line for line in lines)
    are_the_same(result, here)


@pytest.mark.parametrize("epoch", [1, 9])
def test_a_job_outlives_its_launcher_and_who_comes_next_joins_it(
    cluster: Kubernetes, paths: list[str], here: FolderResult, tmp_path: Path, epoch: int
) -> None:
    name, spec = f"orphan-{epoch}-{MARK}", tmp_path / "spec.json"
    spec.write_text(slow(paths).to_json())
    command = [sys.executable, "-c", _LAUNCHING, str(tmp_path / "theirs"), name, str(spec)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert any(line.startswith(f"epoch {epoch}/20") for line in parent.stdout)
        os.kill(parent.pid, signal.SIGKILL)
    before = {pod.metadata.uid for pod in pods(cluster, name)}
    lines: list[str] = []
    result = launch.run(cluster.launcher, name=name, job=slow(paths), log=lines.append)
    assert {pod.metadata.uid for pod in pods(cluster, name)} == before, "nothing trained twice"
    assert next(line for line in lines if line.startswith("epoch")).startswith("epoch 1/20")
    are_the_same(result, here)


def test_when_cancelling_returns_every_pod_has_ended_and_had_not_to_be_killed(
    cluster: Kubernetes, paths: list[str], tmp_path: Path
) -> None:
    name = f"cancelled-{MARK}"
    with real(tmp_path, grace_seconds=3600) as patient:
        run = patient.launcher.launch(name, trouble(paths, "wait"))
        wait_until(lambda: run.status().state is State.RUNNING, what="the job to run")
        run.cancel()  # in the first second of its processes
    assert cluster.launcher.cluster.job(object_name(name)) is None
    assert not cluster.launcher.cluster.pods(object_name(name))
