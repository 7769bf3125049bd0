"""Real training on a cluster whose launcher dies, and on one that preempts; progress in Dagster; the store by URL."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform import launch
from ml_platform.errors import TrainingError
from ml_platform.launch import State
from ml_platform.launch.kubernetes import followers
from ml_platform.launch.kubernetes.manifests import object_name
from ml_platform.launch.local import LocalLauncher
from ml_platform.launch.staging import SPEC, Staging
from ml_platform.launch.training_files import finder
from ml_platform.stages.messages import LogMessages
from ml_platform.store import Store
from ml_platform.training.checkpoint import folder as checkpoint
from ml_platform_tests.launch.api_server import ApiServer
from ml_platform_tests.launch.backends import Kubernetes, launcher_on, played
from ml_platform_tests.launch.conftest import wait_until
from ml_platform_tests.launch.test_launcher import same_bytes, slow
from ml_platform_tests.training import made

REPOSITORY = Path(__file__).parents[2]
_LAUNCHING = """
import sys
from pathlib import Path
from ml_platform import launch
from ml_platform.training.checkpoint import folder as checkpoint
from ml_platform.training.config import TrainingJob
from ml_platform_tests.launch.backends import launcher_on
job = TrainingJob.from_json(Path(sys.argv[2]).read_bytes())
launch.run(launcher_on(Path(sys.argv[1])), name="orphan", job=job, log=lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubernetes")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Kubernetes]:
    with played(folder) as backend:
        yield backend


@pytest.fixture(scope="module")
def server(cluster: Kubernetes) -> ApiServer:
    assert cluster.server is not None
    return cluster.server


def made_jobs(server: ApiServer) -> int:
    """How many Jobs were asked for."""
    return server.requests.count(("POST", "/apis/batch/v1/namespaces/default/jobs"))


@pytest.mark.slow
def test_a_job_outlives_its_launcher_and_who_comes_next_joins_it(
    cluster: Kubernetes,
    server: ApiServer,
    folder: Path,
    paths: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = slow(paths)
    spec = tmp_path / "spec.json"
    spec.write_text(job.to_json())
    before = made_jobs(server)
    command = [sys.executable, "-c", _LAUNCHING, str(folder), str(spec)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert any(line.startswith("epoch 3/20") for line in parent.stdout)
        os.kill(parent.pid, signal.SIGKILL)
    lines: list[str] = []
    seen: list[launch.Status] = []
    result = launch.run(cluster.launcher, name="orphan", job=job, log=lines.append, on_status=seen.append)
    assert made_jobs(server) == before + 1
    assert len(server.pods(f"{object_name('orphan')}-")) == 2, "nothing trained twice"
    epochs = [line for line in lines if line.startswith("epoch")]
    assert epochs[0].startswith("epoch 1/20")
    assert epochs[-1].startswith("epoch 20/20")
    assert same_bytes(result, launch.run(LocalLauncher(tmp_path / "here"), name="here", job=job))
    monkeypatch.setattr(followers, "DEAD_SECONDS", 0.0)  # else who was killed might still be reading it
    assert cluster.launcher.remove("orphan")


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_a_preempted_pod_keeps_its_checkpoint_and_the_job_its_bytes(
    cluster: Kubernetes, server: ApiServer, paths: list[str], tmp_path: Path, shard: bool
) -> None:
    """Where the model is divided, each pod has a part of each checkpoint."""
    name = f"preempted-{shard}"
    job, pods = slow(paths, shard=shard), object_name(name)
    seen: list[launch.Status] = []
    lines: list[str] = []

    def disturb(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 12/20") and not any(pod["status"]["phase"] == "Failed" for pod in server.pods(pods)):
            server.disrupt(server.pods(f"{pods}-0-")[0])

    result = launch.run(cluster.launcher, name=name, job=job, log=disturb, on_status=seen.append)
    assert any("goes on from a checkpoint" in line for line in lines)
    assert State.LOST not in [status.state for status in seen], "the cluster makes the pods again by itself"
    assert max(status.restarts for status in seen) == 1
    assert same_bytes(result, launch.run(LocalLauncher(tmp_path / "here"), name="here", job=job))


@pytest.mark.slow
def test_progress_comes_to_dagster_through_the_log(cluster: Kubernetes, paths: list[str]) -> None:
    messages: list[dict[str, Any]] = []

    @dg.asset
    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        reader = LogMessages()
        with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), reader) as session:
            env = session.get_bootstrap_env_vars()
            launch.run(cluster.launcher, name="told", job=made.job(paths), env=env, log=reader.take)
        messages.extend(session.get_custom_messages())
        return dg.MaterializeResult()

    assert dg.materialize([model], instance=dg.DagsterInstance.ephemeral()).success
    assert [m["epoch"] for m in messages if "step" not in m] == [1, 2]


@pytest.mark.slow
def test_an_image_with_other_code_is_refused(cluster: Kubernetes, paths: list[str], folder: Path) -> None:
    job = made.job(paths)
    launcher = launcher_on(folder, queue="held")  # the pods must wait until the store says something else
    run = launcher.launch("other", job)
    staging = launcher.staging("other", job)
    (path,) = [path for path in staging.store.backend.scan(staging.folder) if path.endswith(SPEC)]
    record = json.loads(staging.store.backend.read_many([path])[path])
    record["code"]["modules"]["ml_platform.training.loop"] = "of an older revision"
    record["code"]["value"] = "another"
    staging.store.backend.replace(path, json.dumps(record).encode())
    assert cluster.server is not None
    (held,) = [each for each in cluster.server.objects.all("jobs") if each["spec"].get("suspend")]
    held["spec"]["suspend"] = False
    wait_until(lambda: run.status().state.final, what="the job to end")
    with pytest.raises(TrainingError, match="not the code that the job was launched with") as caught:
        run.result()
    assert "ml_platform/training/loop.py" in str(caught.value)


def test_what_a_job_reads_is_found_by_hash_wherever_the_store_is_seen_from(paths: list[str], tmp_path: Path) -> None:
    """Memory's file system stands for a remote one: what it gives are copies, verified."""
    url = f"memory://{tmp_path.name}"
    here, there = (Store(url, cache=tmp_path / side) for side in ("here", "there"))
    job = made.job(paths)
    staging = Staging.of(here, "name", job)
    staging.write(job)
    got = Staging(there, staging.folder).read(tmp_path / "work")
    assert got.identity() == job.identity()
    find = finder(there, tmp_path / "work")
    assert not [*(tmp_path / "there" / "blobs").glob("*/*")], "nothing is fetched before it is read"
    found = [find(name).local() for name in got.files]
    assert [path.read_bytes() for path in found] == [Path(path).read_bytes() for path in paths]
    assert all(path.is_relative_to(tmp_path / "there") for path in found)
    assert Path(got.output).parent == tmp_path / "work"


def committed(place: Path, done: int, parts: dict[str, str], *, first: bool = True, **others: str) -> str:
    """A checkpoint as a machine has it: its ranks' parts, and on rank 0's the manifest, which names the others too."""
    draft = checkpoint.draft_of(place, done)
    draft.mkdir(parents=True)
    for name, text in parts.items():
        (draft / name).write_text(text)
    texts = {**parts, **others}
    files = {name: hashlib.sha256(texts[name].encode()).hexdigest() for name in sorted(texts)}
    checkpoint.commit(draft, {"done": done, "files": files}, first=first)
    return checkpoint.listed(place)[0]


def test_checkpoints_in_the_store_follow_those_of_the_job(tmp_path: Path) -> None:
    staging = Staging(Store(tmp_path / "store", cache=tmp_path / "cache"), "jobs/a/b")
    here, there = tmp_path / "checkpoints", tmp_path / "other"
    checkpoint.draft_of(here, 30).mkdir(parents=True)
    ten = committed(here, 10, {"__0_0.distcp": "ten"})
    kept = staging.keep_checkpoints(here, set())
    assert kept == {ten}
    twenty = committed(here, 20, {"__0_0.distcp": "twenty"})
    checkpoint.remove(here, ten)
    assert staging.keep_checkpoints(here, kept) == {twenty}
    committed(there, 5, {"__0_0.distcp": "of another attempt"})
    assert staging.fetch_checkpoints(there) == {twenty}
    assert checkpoint.listed(there) == [twenty]
    assert checkpoint.read(there, twenty) is not None
    assert (there / twenty / "__0_0.distcp").read_text() == "twenty"


def test_a_checkpoint_of_several_pods_counts_when_the_parts_of_all_are_in_the_store(tmp_path: Path) -> None:
    staging = Staging(Store(tmp_path / "store", cache=tmp_path / "cache"), "jobs/a/b")
    zero, one, fetched = (tmp_path / name for name in ("zero", "one", "fetched"))
    ten = committed(zero, 10, {"__0_0.distcp": "left"}, **{"__1_0.distcp": "right"})
    assert staging.keep_checkpoints(zero, set()) == set()
    assert staging.fetch_checkpoints(fetched) == set(), "half of it is no checkpoint"
    draft = checkpoint.draft_of(one, 10)
    draft.mkdir(parents=True)
    (draft / "__1_0.distcp").write_text("right")
    checkpoint.commit(draft, checkpoint.manifest(zero, ten), first=False)
    assert checkpoint.listed(one) == [ten]
    assert staging.keep_checkpoints(one, set(), first=False) == {ten}
    assert staging.fetch_checkpoints(fetched) == set(), "nobody has said yet that it is whole"
    assert staging.keep_checkpoints(zero, set()) == {ten}
    assert staging.fetch_checkpoints(fetched) == {ten}
    assert checkpoint.read(fetched, ten) is not None
    checkpoint.remove(one, ten)
    assert staging.keep_checkpoints(one, {ten}, first=False) == {ten}, "it is rank 0's to remove"
    assert staging.fetch_checkpoints(fetched) == {ten}
