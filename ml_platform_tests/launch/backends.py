"""The launchers that one suite runs against: local, Kubernetes as `api_server` plays it, and a real cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ml_platform.launch import Launcher
from ml_platform.launch.kubernetes.cluster import index_of
from ml_platform.launch.kubernetes.launcher import KubernetesLauncher
from ml_platform.launch.kubernetes.manifests import object_name
from ml_platform.launch.local import LocalLauncher
from ml_platform.settings import KubernetesSettings, Settings
from ml_platform.store import Store
from ml_platform_tests.launch.api_server import ApiServer
from ml_platform_tests.launch.conftest import pids, processes


class Backend(Protocol):
    """A launcher, and what a test must know beside it."""

    @property
    def launcher(self) -> Launcher:
        """It."""

    def is_alive(self, name: str) -> bool:
        """Whether anything of a job of that name still runs."""

    def kill_worker(self, name: str, rank: int) -> None:
        """Kill the worker with that rank, of two, without warning."""


@dataclass
class Local:
    """Processes here."""

    launcher: LocalLauncher

    def is_alive(self, name: str) -> bool:
        return bool(processes(self.launcher.folder(name)))

    def kill_worker(self, name: str, rank: int) -> None:
        os.kill(sorted(pids("-m ml_platform.training.job ", self.launcher.folder(name)))[rank], signal.SIGKILL)


@dataclass
class Kubernetes:
    """A cluster; `server` where it is ours."""

    launcher: KubernetesLauncher
    server: ApiServer | None = None

    def is_alive(self, name: str) -> bool:
        pods = self.launcher.cluster.pods(object_name(name))
        return any(pod.status.phase in ("Pending", "Running") for pod in pods)

    def kill_worker(self, name: str, rank: int) -> None:
        if self.server is not None:
            self.server.kill(self.server.pods(f"{object_name(name)}-{rank}-")[0])
            return
        import kubernetes

        core = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config())
        namespace = self.launcher.settings.namespace
        running = [p for p in self.launcher.cluster.pods(object_name(name)) if p.status.phase == "Running"]
        (pod,) = [p for p in running if index_of(p) == rank]
        core.delete_namespaced_pod(pod.metadata.name, namespace, grace_period_seconds=0)


@contextlib.contextmanager
def played(folder: Path, **changes: Any) -> Iterator[Kubernetes]:
    """Kubernetes as `api_server` plays it, with a store in a folder that its pods see too."""
    with ApiServer(folder / "cluster") as server:
        yield Kubernetes(launcher_on(folder, **changes), server)


def launcher_on(folder: Path, *, team: Any = None, **changes: Any) -> KubernetesLauncher:
    """A launcher, such as another process or machine would have, on the cluster that is played in that folder."""
    settings = {"image": "project:1", "poll_seconds": 0.1, "patience_seconds": 30.0, "grace_seconds": 10}
    store = Store(folder / "store", cache=folder / "cache")
    places = {"store": str(folder / "store"), "kubeconfig": str(folder / "cluster" / "kubeconfig")}
    typed = KubernetesSettings(**{**settings, **places, **changes})
    return KubernetesLauncher(typed, store, Path(tempfile.mkdtemp(dir=folder)), team=team)


@contextlib.contextmanager
def real(folder: Path, **changes: Any) -> Iterator[Kubernetes]:
    """The cluster that KUBECONFIG names. ML_PLATFORM_KUBERNETES names an image that has the tests too, and
    ML_PLATFORM_STORE a store that both sides reach. `changes` are of the Kubernetes settings."""
    settings = Settings()
    store = Store(settings.store, cache=folder / "cache", storage_options=settings.storage_options)
    typed = settings.kubernetes.model_copy(update=changes)
    yield Kubernetes(KubernetesLauncher(typed, store, folder / "work"))
