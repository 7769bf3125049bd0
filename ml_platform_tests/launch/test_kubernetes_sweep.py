"""Jobs that nobody wants any more go; those that somebody may still want stay."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform.automation import abandoned
from ml_platform.cli.main import main
from ml_platform.definitions import build_definitions
from ml_platform.launch.kubernetes import sweep as sweeping
from ml_platform.launch.kubernetes.launcher import KubernetesLauncher
from ml_platform.launch.kubernetes.sweep import sweep_jobs, sweep_store
from ml_platform.pipeline import Pipeline
from ml_platform.settings import KubernetesSettings, Settings
from ml_platform.store import Manifest, layout
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.launch.api_server import ApiServer
from ml_platform_tests.launch.backends import Kubernetes, launcher_on, played
from ml_platform_tests.training import made


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Kubernetes]:
    with played(tmp_path, queue="held") as backend:  # suspended: no pod has to run
        yield backend


@pytest.fixture
def server(cluster: Kubernetes) -> ApiServer:
    assert cluster.server is not None
    return cluster.server


@pytest.fixture
def job(cluster: Kubernetes, server: ApiServer, paths: list[str]) -> dict[str, Any]:
    """A Job of a launcher that is alive."""
    cluster.launcher.launch("f" * 32, made.job(paths))
    found: dict[str, Any] = server.objects.all("jobs")[0]
    return found


def age(job: dict[str, Any], seconds: float) -> None:
    """Let its follower have died so long ago, and the Job be older."""
    when = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    notes = job["metadata"]["annotations"]
    notes |= {key: when.isoformat() for key in notes if "follower" in key}
    job["metadata"]["creationTimestamp"] = (when - dt.timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def swept(launcher: KubernetesLauncher, **changes: Any) -> list[str]:
    """Why Jobs went."""
    options: dict[str, Any] = {"running": lambda pipeline: False, "wanted": lambda pipeline: {"f" * 32}, **changes}
    store = launcher.staging("f" * 32, made.job(["a"])).store
    return [each.why for each in sweep_jobs(launcher.cluster, launcher.settings, store, **options)]


def test_a_job_that_is_followed_stays_whatever_the_pipeline_would_train(
    cluster: Kubernetes, job: dict[str, Any]
) -> None:
    job["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    assert swept(cluster.launcher, wanted=lambda pipeline: {"another"}) == []


def test_a_job_whose_launcher_died_is_left_for_the_next_run_and_then_goes(
    cluster: Kubernetes, server: ApiServer, job: dict[str, Any]
) -> None:
    age(job, 3000)
    assert swept(cluster.launcher) == []
    age(job, 3700)
    assert swept(cluster.launcher, running=lambda pipeline: pipeline == "made") == []
    assert swept(cluster.launcher, dry_run=True) == ["nobody has followed it for 62 minutes"]
    assert "deletionTimestamp" not in job["metadata"]
    assert swept(cluster.launcher) == ["nobody has followed it for 62 minutes"]
    assert "deletionTimestamp" in job["metadata"]


def test_a_job_that_no_fingerprint_wants_goes_sooner(cluster: Kubernetes, job: dict[str, Any]) -> None:
    age(job, 100)
    assert swept(cluster.launcher, wanted=lambda pipeline: {"another"}) == []
    age(job, 150)
    assert swept(cluster.launcher, wanted=lambda pipeline: None) == []
    assert swept(cluster.launcher, wanted=lambda pipeline: {"another"}) == [
        "the pipeline would train another model now"
    ]


def test_a_finished_job_is_left_to_its_time_to_live(cluster: Kubernetes, job: dict[str, Any]) -> None:
    age(job, 10_000)
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "x", "message": "y"}]}
    job["status"]["failed"] = 1
    assert swept(cluster.launcher) == []


def test_what_jobs_left_in_the_store_goes_when_the_model_is_there_or_nobody_came_back(
    cluster: Kubernetes, server: ApiServer, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = cluster.launcher
    for name in ("a" * 32, "b" * 32, "c" * 32):
        launcher.staging(name, made.job(paths)).write(made.job(paths))
    store = launcher.staging("a", made.job(paths)).store
    (tmp_path / "weights").write_text("w")
    manifest = Manifest(
        pipeline="made",
        stage="trained_model",
        batch="",
        fingerprint="a" * 32,
        data_version="d",
        inputs={},
        files=(),
        code_version="c",
        facts={},
        verdict="",
        run_id="r",
    )
    store.commit(manifest, {"weights": tmp_path / "weights"})
    launcher.launch("b" * 32, made.job(paths))  # runs
    assert [each.why for each in sweep_store(launcher.cluster, store, trains=lambda pipeline: {"trained_model"})] == [
        "its model is in the store"
    ]
    assert {path.split("/")[1] for path in store.records(layout.JOBS)} == {"b" * 32, "c" * 32}
    monkeypatch.setattr(sweeping, "FORGOTTEN_SECONDS", 0.0)
    assert [each.why for each in sweep_store(launcher.cluster, store, trains=lambda pipeline: {"trained_model"})] == [
        "nobody took it up for a week"
    ]
    assert {path.split("/")[1] for path in store.records(layout.JOBS)} == {"b" * 32}


def kubernetes_settings(tmp_path: Path) -> Settings:
    played_one = KubernetesSettings(
        image="project:1", kubeconfig=str(tmp_path / "cluster" / "kubeconfig"), store=str(tmp_path / "store")
    )
    return fresh_settings(
        tmp_path / "home", launcher="kubernetes", kubernetes=played_one, store=str(tmp_path / "store")
    )


def test_the_sensor_is_there_where_training_runs_on_a_cluster_and_removes(
    job: dict[str, Any], tmp_path: Path, tiny: Pipeline
) -> None:
    settings = kubernetes_settings(tmp_path)
    assert "abandoned_jobs" not in {s.name for s in build_definitions([tiny], Settings()).sensors or ()}
    sensors = {sensor.name: sensor for sensor in build_definitions([tiny], settings).sensors or ()}
    age(job, 4000)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance)
        skipped = sensors["abandoned_jobs"](context)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "Removed 1."
    assert "deletionTimestamp" in job["metadata"]


def test_a_run_of_the_pipeline_in_progress_keeps_its_job(job: dict[str, Any], tmp_path: Path) -> None:
    age(job, 4000)
    with dg.DagsterInstance.ephemeral() as instance:

        @dg.asset(key=["made", "trained_model"])
        def model() -> None:
            """Whatever."""

        run = instance.create_run_for_job(
            dg.define_asset_job("made_chain", [model]).resolve(
                asset_graph=dg.Definitions([model]).resolve_asset_graph()
            ),
            status=dg.DagsterRunStatus.NOT_STARTED,
        )
        assert abandoned.sweep(kubernetes_settings(tmp_path), instance) == []
        instance.report_run_canceled(run)
        assert [each.pipeline for each in abandoned.sweep(kubernetes_settings(tmp_path), instance)] == ["made"]


def test_the_command_says_what_goes_and_why(
    job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    age(job, 4000)
    settings = kubernetes_settings(tmp_path)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_STORE", settings.store)
    from ml_platform.settings import settings as read

    for launcher, told in (("local", "nothing to sweep"), ("kubernetes", f"Job train-{'f' * 32}")):
        monkeypatch.setenv("ML_PLATFORM_LAUNCHER", launcher)
        monkeypatch.setenv("ML_PLATFORM_KUBERNETES", json.dumps(settings.kubernetes.model_dump()))
        read.cache_clear()
        with pytest.raises(SystemExit) as ended:
            main(["sweep"])
        assert not ended.value.code
        assert told in capsys.readouterr().out
    read.cache_clear()
    assert "deletionTimestamp" in job["metadata"]


def test_a_launcher_elsewhere_sees_the_same_marks(cluster: Kubernetes, job: dict[str, Any], tmp_path: Path) -> None:
    elsewhere = launcher_on(tmp_path)
    assert swept(elsewhere, wanted=lambda pipeline: {"another"}) == []
