"""What the Kubernetes launcher does in the cluster's own situations. Pods here run a script in place of training: what
they train is tried in `test_launcher`, and what happens to a job whose launcher dies in `test_kubernetes_faults`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig

from ml_platform import launch
from ml_platform.errors import SetupError, TrainingError
from ml_platform.launch import State
from ml_platform.launch.kubernetes import codes, followers
from ml_platform.launch.kubernetes.launcher import KubernetesLauncher
from ml_platform.launch.kubernetes.manifests import object_name
from ml_platform.launch.kubernetes.sweep import sweep_jobs
from ml_platform.settings import KubernetesSettings
from ml_platform_tests.launch.api_server import ApiServer
from ml_platform_tests.launch.api_server.objects import set_condition
from ml_platform_tests.launch.backends import Kubernetes, launcher_on, played
from ml_platform_tests.launch.conftest import wait_until
from ml_platform_tests.launch.test_kubernetes_sweep import age
from ml_platform_tests.training import made

SLEEPING = "trap 'exit 75' TERM; echo training; while true; do sleep 0.05; done"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Kubernetes]:
    with played(tmp_path) as backend:
        yield backend


@pytest.fixture
def server(cluster: Kubernetes) -> ApiServer:
    assert cluster.server is not None
    return cluster.server


def launcher(tmp_path: Path, script: str = SLEEPING, **changes: Any) -> KubernetesLauncher:
    """A launcher whose pods run a shell script. `$1` is the pod's index, `$2` where its last words go."""
    path = tmp_path / "python.sh"
    path.write_text(f"""#!/bin/sh
for word; do case $word in --index=*) i=${{word#*=}};; --last-words=*) words=${{word#*=}};; esac; done
set -- $i $words
{script}
""")
    path.chmod(0o755)
    return launcher_on(tmp_path, python=str(path), **changes)


def end_of(run: launch.Run) -> TrainingError:
    """The error with which a job ends."""
    wait_until(lambda: run.status().state.final, what="the job to end")
    with pytest.raises(TrainingError) as caught:
        run.result()
    return caught.value


def waits(run: launch.Run) -> str:
    """What a job waits for, once it is known."""
    found: list[str] = []

    def look() -> bool:
        status = run.status()
        found[:] = [status.detail]
        return status.state is State.WAITING and status.detail not in ("", "for its pods to be made")

    wait_until(look, what="the job to wait")
    return found[0]


def test_one_job_and_a_headless_service_that_goes_with_it(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    run = launcher(tmp_path).launch("f" * 32, made.job(paths))
    (job,), (service,) = server.objects.all("jobs"), server.objects.all("services")
    name = f"train-{'f' * 32}"
    assert job["metadata"]["name"] == service["metadata"]["name"] == name
    assert service["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    wait_until(lambda: run.status().state is State.RUNNING and [*server.pods()], what="pods")
    run.cancel()
    assert not server.objects.all("jobs")
    assert not server.objects.all("pods")
    assert not server.objects.all("services")


def test_what_a_team_says_of_its_pods_is_honoured(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    team = K8sContainerContext(
        run_k8s_config=UserDefinedDagsterK8sConfig(
            container_config={"resources": {"limits": {"memory": "2Gi"}}, "env": [{"name": "MINE", "value": "1"}]},
            pod_spec_config={
                "nodeSelector": {"gpu": "yes"},
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "priorityClassName": "training",
            },
            pod_template_spec_metadata={"labels": {"team": "planes"}},
        )
    )
    container = {
        "service_account_name": "trainer",
        "env_secrets": ["s3"],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volume_mounts": [{"name": "data", "mountPath": "/data"}],
        "image_pull_policy": "IfNotPresent",
    }
    mine = launcher_on(tmp_path, store="s3://b/store", container=container, scheduler="volcano", team=team)
    run = mine.launch("mine", made.job(paths))
    template = server.objects.all("jobs")[0]["spec"]["template"]
    pod, main = template["spec"], template["spec"]["containers"][0]
    assert template["metadata"]["labels"]["team"] == "planes"
    assert pod["nodeSelector"] == {"gpu": "yes"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert (pod["priorityClassName"], pod["schedulerName"]) == ("training", "volcano")
    assert pod["serviceAccountName"] == "trainer"
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data"}} in pod["volumes"]
    assert {volume["name"] for volume in pod["volumes"]} == {"scratch", "data"}
    assert main["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert main["resources"] == {"limits": {"memory": "2Gi"}}
    assert main["imagePullPolicy"] == "IfNotPresent"
    env = {each["name"]: each.get("value") for each in main["env"]}
    assert (env["MINE"], env["ML_PLATFORM_STORE"]) == ("1", "s3://b/store")
    run.cancel()


def test_a_job_waits_for_quota_and_that_is_not_its_own_time(
    server: ApiServer, paths: list[str], tmp_path: Path
) -> None:
    run = launcher(tmp_path, queue="team", deadline_seconds=1).launch("queued", made.job(paths))
    (job,) = server.objects.all("jobs")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert waits(run) == "for quota of Kueue's queue team"
    labels = {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}
    workload = {"metadata": {"name": "job-train-queued-0a1b2", "labels": labels}}
    set_condition(workload, "QuotaReserved", "Pending", "insufficient quota for cpu", status="False")
    server.objects.create("workloads", job["metadata"]["namespace"], workload)
    wait_until(lambda: waits(run) == "for quota of Kueue's queue team: insufficient quota for cpu", what="the reason")
    wait_until(lambda: "startTime" not in job["status"] and "conditions" in job["status"], what="the controller")
    assert not server.pods()
    job["spec"]["suspend"] = False  # as Kueue does when there is quota
    wait_until(lambda: server.pods(), what="pods")
    assert "took longer than it may" in str(end_of(run))


@pytest.mark.parametrize(
    ("container", "told"),
    [
        (
            {"resources": {"requests": {"cpu": "99"}}},
            "pod 0 cannot be scheduled: 0/1 nodes are available: 1 Insufficient",
        ),
        ({"image": "typo:1"}, "pod 0: its image cannot be pulled ("),
        (
            {"securityContext": {"privileged": True}},
            "no pod can be made: Error creating: pods is forbidden: violates Pod",
        ),
    ],
)
def test_what_a_job_waits_for_is_told_and_stands_in_the_error_when_its_time_is_over(
    server: ApiServer, paths: list[str], tmp_path: Path, container: dict[str, Any], told: str
) -> None:
    whole = {"run_k8s_config": {"container_config": container}}
    run = launcher(tmp_path, container=whole, deadline_seconds=6).launch("stuck", made.job(paths))
    assert told in waits(run)
    error = end_of(run)
    assert "took longer than it may" in str(error)
    assert told in str(error)
    assert not error.passing


@pytest.mark.parametrize(
    ("container", "told", "fix"),
    [
        (
            {"run_k8s_config": {"container_config": {"image": "typo:1"}}},
            ["pod 1 (image typo:1): its image cannot be pulled", 'image "docker.io/library/typo:1": not found'],
            "correct `image`",
        ),
        (
            {"run_k8s_config": {"container_config": {"image": "Bad Name"}}},
            ["(InvalidImageName)", "invalid reference format"],
            "correct `image`",
        ),
        (
            {"env_secrets": ["absent"]},
            ["pod 0 (image project:1): a Secret,", 'secret "absent" not found'],
            "make what is missing",
        ),
    ],
)
def test_a_job_whose_pods_cannot_start_is_given_up_and_all_who_follow_it_are_told_why(
    server: ApiServer, paths: list[str], tmp_path: Path, container: dict[str, Any], told: list[str], fix: str
) -> None:
    """Long before its deadline, and not once more: the second launch follows the Job that the first one ends."""
    first, second = (
        launcher(tmp_path, container=container, image_pull_seconds=1.0).launch("stuck", made.job(paths))
        for _ in range(2)
    )
    assert (first.joined, second.joined) == (False, True)
    for run in (first, second):
        error = end_of(run)
        assert "cannot start" in str(error)
        assert all(words in str(error) for words in told), error
        assert fix in str(error)
        assert not error.passing
    assert server.requests.count(("POST", "/apis/batch/v1/namespaces/default/jobs")) == 1


def test_what_can_be_put_right_in_time_does_not_end_a_job(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    script = "if [ $1 = 1 ]; then exit 1; fi; sleep 60"
    late = launcher(tmp_path, script, image="late:1", container={"env_secrets": ["s3"]}).launch("late", made.job(paths))
    assert "its image cannot be pulled" in waits(late)
    server.kubelet.images.add("late:1")
    wait_until(lambda: 'secret "s3" not found' in late.status().detail, what="the next that is missing")
    server.kubelet.secrets.add("s3")
    assert "cannot start" not in str(end_of(late)), "its pods have run"


def test_a_job_that_takes_more_gpu_hours_than_it_may_is_ended(
    server: ApiServer, paths: list[str], tmp_path: Path
) -> None:
    """Two pods of four GPUs: eight times the seconds."""
    seen: list[launch.Status] = []
    with pytest.raises(TrainingError, match="more GPU-hours than it may") as caught:
        launch.run(
            launcher(tmp_path, container={"resources": {"limits": {"nvidia.com/gpu": "4", "memory": "2Gi"}}}),
            name="dear",
            job=made.job(paths, gpu_hours=1e-4, timeout_seconds=3600),
            on_status=seen.append,
        )
    assert {status.gpus for status in seen if status.state is State.RUNNING} == {8}
    assert "Recipe.gpu_hours is 0.0001" in str(caught.value)
    assert not caught.value.passing
    assert not server.objects.all("jobs"), "nothing is paid for any more"


@pytest.mark.parametrize("end", ["goes on", "is swept away", "fails"])
def test_what_a_job_takes_while_nobody_follows_it_counts_too(
    server: ApiServer, paths: list[str], tmp_path: Path, end: str
) -> None:
    """Two pods of four GPUs, for an hour, after their launcher's death; none is started for what is spent already."""
    gpus = {"resources": {"limits": {"nvidia.com/gpu": "4"}}}
    script = f"while [ ! -e {tmp_path}/fail ]; do sleep 0.05; done; exit 1" if end == "fails" else SLEEPING
    dead = launcher(tmp_path, script, container=gpus).launch("left", made.job(paths))
    wait_until(lambda: dead.status().state is State.RUNNING, what="its pods to run")
    (job,) = server.objects.all("jobs")
    age(job, 3600)
    for pod in server.pods():
        pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = job["metadata"]["creationTimestamp"]
    if end == "is swept away":
        store = launcher(tmp_path).staging("left", made.job(paths)).store
        cluster, settings = launcher(tmp_path).cluster, KubernetesSettings(abandoned_seconds=60)
        assert list(sweep_jobs(cluster, settings, store, running=lambda pipeline: False, wanted=lambda pipeline: None))
        wait_until(lambda: not server.objects.all("jobs"), what="it to go")
    elif end == "fails":
        (tmp_path / "fail").touch()
        wait_until(lambda: job["status"].get("conditions"), what="it to fail")
    with pytest.raises(TrainingError, match="more GPU-hours than it may") as caught:
        launch.run(launcher(tmp_path, container=gpus), name="left", job=made.job(paths, gpu_hours=7.5))
    assert "8.1" in str(caught.value), "an hour and a minute"
    assert server.requests.count(("POST", "/apis/batch/v1/namespaces/default/jobs")) == 1
    again = launcher(tmp_path, container=gpus).launch("left", made.job(paths, gpu_hours=9))
    assert again.status().used.gpu_seconds > 8 * 3600
    again.cancel()


def test_a_failure_of_its_own_fails_the_job_at_once(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    words = '{"failures": [{"rank": 1, "exit_code": 1, "message": "ValueError: no", "traceback": "Traceback: x.py", \
        "time": 1.0, "consequence": false}], "more": 0}'
    script = f"echo hello; if [ $1 = 1 ]; then echo '{words}' > $2; exit 1; fi; sleep 60"
    error = end_of(launcher(tmp_path, script).launch("bug", made.job(paths)))
    assert str(error).startswith(
        "Training failed in rank 1, which ended with exit code 1 (an exception): ValueError: no\nTraceback: x.py"
    )
    assert "[pod 1] hello" in str(error)
    assert not error.passing
    assert (
        len([request for request in server.requests if request == ("POST", "/apis/batch/v1/namespaces/default/jobs")])
        == 1
    )
    assert {pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in server.pods()} == {"1"}


def test_what_comes_from_outside_is_tried_again_as_long_as_the_budget_lasts(
    server: ApiServer, paths: list[str], tmp_path: Path
) -> None:
    script = f"if [ $1 = 1 ]; then exit {codes.PREEMPTED}; else sleep 0.3; exit {codes.PEER_LOST}; fi"
    run = launcher(tmp_path, script).launch("lost", made.job(paths, restarts=1))
    error = end_of(run)
    assert "more often than its budget allows" in str(error)
    assert "preempted, evicted" in str(error)
    assert error.passing
    assert run.status().state is State.FAILED, "the platform must not begin a second budget"
    assert len([p for p in server.objects.all("pods") if p["status"]["phase"] == "Failed"]) >= 3


def test_a_preemption_is_counted_as_such_and_the_pod_comes_back(
    server: ApiServer, paths: list[str], tmp_path: Path
) -> None:
    # Even where the pod had no time to tell: its own exit code says "bug".
    run = launcher(tmp_path, SLEEPING.replace("75", "1")).launch("preempted", made.job(paths, restarts=1))
    name = object_name("preempted")
    wait_until(lambda: [p["status"]["phase"] for p in server.pods()] == ["Running"] * 2, what="both pods")
    wait_until(lambda: "training" in list(run.logs()) or run.status() is None, what="the pod's trap")
    server.disrupt(server.pods(f"{name}-1-")[0])
    wait_until(lambda: server.objects.all("jobs")[0]["status"]["failed"] == 1, what="the pod to be counted")
    wait_until(lambda: [p["status"]["phase"] for p in server.pods(f"{name}-1-")][:1] == ["Running"], what="another")
    assert not run.status().state.final
    run.cancel()


def test_a_pod_without_memory_is_explained(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    run = launcher(tmp_path).launch("big", made.job(paths, restarts=0))
    wait_until(lambda: [p["status"]["phase"] for p in server.pods()] == ["Running"] * 2, what="both pods")
    server.kubelet.kill_for_memory(server.pods(f"{object_name('big')}-1-")[0])
    error = end_of(run)
    assert str(error).startswith("Training failed: pod 1 ran out of memory (OOMKilled).")
    assert "memory limit" in str(error)


def test_a_job_that_was_deleted_by_hand_is_made_again(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    seen: list[State] = []

    def on_status(status: launch.Status) -> None:
        seen.append(status.state)
        if seen == [State.WAITING, State.RUNNING] or seen == [State.RUNNING]:
            server.objects.all("jobs")[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        elif seen.count(State.RUNNING) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.run(launcher(tmp_path), name="deleted", job=made.job(paths), on_status=on_status, pause_seconds=0.1)
    assert State.LOST in seen
    assert not server.objects.all("jobs"), "what was interrupted is cancelled"


def test_an_api_server_that_is_away_for_a_while_is_waited_for(
    server: ApiServer, paths: list[str], tmp_path: Path
) -> None:
    answers = iter([500, 0, 503, 0, 429])
    server.trouble = lambda method, path: next(answers, None)
    run = launcher(tmp_path).launch("patient", made.job(paths))
    assert len(server.objects.all("jobs")) == 1
    wait_until(lambda: run.status().state is State.RUNNING, what="the job to run")
    server.trouble = lambda method, path: 0 if method == "LOG" or path.endswith("/log") else None  # logs break off
    wait_until(lambda: [p["status"]["phase"] for p in server.pods()] == ["Running"] * 2, what="both pods")
    run.status()
    server.trouble = lambda method, path: None
    told: list[str] = []
    wait_until(lambda: told.extend(run.logs()) or len(told) == 2, what="the logs")
    assert sorted(told) == ["[pod 1] training", "training"]
    run.cancel()


def test_an_api_server_that_stays_away_ends_the_run_and_not_the_job(
    server: ApiServer, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "DEAD_SECONDS", 3.0)
    impatient = launcher(tmp_path, patience_seconds=0.5)

    def on_status(status: launch.Status) -> None:
        server.trouble = lambda method, path: 500

    with pytest.raises(TrainingError, match="does not answer") as caught:
        launch.run(impatient, name="away", job=made.job(paths), on_status=on_status)
    assert caught.value.passing
    server.trouble = lambda method, path: None
    (job,) = server.objects.all("jobs")
    assert "deletionTimestamp" not in job["metadata"]
    again = launcher(tmp_path).launch("away", made.job(paths))
    assert again.joined
    again.cancel()


def test_a_refusal_says_what_kubernetes_said(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    server.trouble = lambda method, path: 403 if method == "POST" else None
    with pytest.raises(TrainingError, match="403 in trouble") as caught:
        launcher(tmp_path).launch("refused", made.job(paths))
    assert "role" in str(caught.value)


def test_a_store_that_pods_cannot_see_is_refused(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="Pods cannot see the store"):
        launcher(tmp_path, store="").launch("alone", made.job(paths))
    assert not server.objects.all("jobs")


def test_whoever_died_does_not_keep_a_cancelled_job_alive(
    server: ApiServer, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "DEAD_SECONDS", 3.0)
    dead = launcher(tmp_path).launch("orphan", made.job(paths))
    del dead
    run = launcher(tmp_path).launch("orphan", made.job(paths))
    assert run.joined
    assert len(followers.marks(launcher(tmp_path).cluster.job(object_name("orphan")))) == 2
    run.cancel()
    assert not server.objects.all("jobs")


def test_when_cancelling_returns_every_pod_has_ended(server: ApiServer, paths: list[str], tmp_path: Path) -> None:
    run = launcher(tmp_path).launch("gone", made.job(paths))
    wait_until(lambda: [p["status"]["phase"] for p in server.pods()] == ["Running"] * 2, what="both pods")
    numbers = [server.kubelet.pid(pod) for pod in server.pods()]
    run.cancel()
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, signal.SIGCONT)
