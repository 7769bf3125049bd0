"""What pods fetch of the training files, from a store on S3, over HTTP."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_platform import launch
from ml_platform.launch.kubernetes.launcher import KubernetesLauncher
from ml_platform.launch.local import LocalLauncher
from ml_platform.settings import KubernetesSettings
from ml_platform.store import Store
from ml_platform.training.config import TrainingJob, Warm
from ml_platform_tests.launch.api_server import ApiServer
from ml_platform_tests.launch.test_launcher import same_bytes
from ml_platform_tests.store.conftest import s3_endpoint, s3_options, s3_url
from ml_platform_tests.training import made

__all__ = ["s3_endpoint", "s3_options", "s3_url"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path / "cluster") as server:
        yield server


def fetched(server: ApiServer, folder: Path, paths: list[str]) -> list[list[int]]:
    """By pod, which of the files it has fetched."""
    named = {hashlib.sha256(Path(path).read_bytes()).hexdigest(): place for place, path in enumerate(paths)}
    pods = [folder / "cluster" / "pods" / pod["metadata"]["uid"] for pod in server.pods()]
    return sorted(sorted(named[blob.name] for blob in pod.rglob("blobs/*/*") if blob.name in named) for pod in pods)


def train(
    server: ApiServer, folder: Path, url: str, options: dict[str, Any], job: TrainingJob, ranks: int = 1
) -> launch.FolderResult:
    """Train in two pods that share nothing but the store."""
    keys = [f"{name}={os.environ[name]}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    settings = KubernetesSettings(
        image="project:1",
        poll_seconds=0.1,
        processes_per_pod=ranks,
        kubeconfig=str(server.kubeconfig),
        container={"env_vars": [*keys, f"ML_PLATFORM_STORAGE_OPTIONS={json.dumps(options)}"]},
    )
    store = Store(f"{url}/store", cache=folder / "cache", storage_options=options)
    return launch.run(KubernetesLauncher(settings, store, folder / "work"), name="job", job=job)


@pytest.mark.slow
def test_pods_together_fetch_each_file_once_but_for_those_at_their_border(
    server: ApiServer, tmp_path: Path, s3_url: str, s3_options: dict[str, Any]
) -> None:
    paths = made.files(tmp_path / "data", batches=7, rows=200)
    job = made.job(paths, processes=4)
    result = train(server, tmp_path, s3_url, s3_options, job, ranks=2)
    first, second = fetched(server, tmp_path, paths)
    assert first == list(range(first[-1] + 1))
    assert second == list(range(second[0], 7))
    assert 0 <= first[-1] - second[0] + 1 <= 1
    assert same_bytes(result, launch.run(LocalLauncher(tmp_path / "here"), name="here", job=job))


@pytest.mark.slow
def test_streaming_and_a_warm_start_find_their_files_too(
    server: ApiServer, tmp_path: Path, s3_url: str, s3_options: dict[str, Any]
) -> None:
    """A parent that serves only after all rows were looked at: of another class, so that training begins anew."""
    paths = made.files(tmp_path / "data", batches=4, rows=10_000, row_group=1500)
    here = LocalLauncher(tmp_path / "here")
    changes: dict[str, Any] = {"task": "multiclass", "label": "kind", "epochs": 1, "batch_size": 1024, "memory_mib": 1}
    two = tmp_path / "two.parquet"
    made.without(paths[0], two, label="kind", value="top")
    parent = launch.run(here, name="parent", job=made.job([str(two)], **changes))
    warm = Warm(parent="p", folder=str(parent.folder), files=(paths[3],))
    job = made.job(paths, warm=warm, **changes)
    result = train(server, tmp_path, s3_url, s3_options, job)
    assert "a class that it never saw" in result.history["warm_start"]["cold"]
    assert result.history["topology"]["rows_in"] == "streaming"
    assert set(itertools.chain(*fetched(server, tmp_path, paths))) == {0, 1, 2, 3}
    assert same_bytes(result, launch.run(here, name="here", job=job))
