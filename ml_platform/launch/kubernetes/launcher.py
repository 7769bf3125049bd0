"""Training on a Kubernetes cluster: one Indexed Job a fingerprint, which whoever asks for it joins.

The Job lives on its own: when its launcher dies it goes on, and the next launch follows it. What it reads, its
checkpoints and its result are in the store (`launch/staging.py`), so nothing is lost with a pod.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import SetupError
from ml_platform.launch.kubernetes import followers, manifests
from ml_platform.launch.kubernetes.cluster import Cluster
from ml_platform.launch.kubernetes.run import KubernetesRun, has_ended
from ml_platform.launch.staging import Staging, remove
from ml_platform.settings import KubernetesSettings
from ml_platform.store import Store, layout
from ml_platform.store.filesystem import local_folder
from ml_platform.training.config import TrainingJob

if TYPE_CHECKING:
    from dagster_k8s.container_context import K8sContainerContext


class KubernetesLauncher:
    """Runs jobs as Indexed Jobs.

    Args:
        settings: which cluster, and how.
        store: through which pods get their inputs and hand over their result.
        work: a local folder for results.
        team: dagster-k8s's configuration that comes on top of the settings'.
    """

    messages = "log"

    def __init__(
        self, settings: KubernetesSettings, store: Store, work: Path, *, team: K8sContainerContext | None = None
    ) -> None:
        self._settings, self._store, self._work, self._team = settings, store, work.absolute(), team
        self._runs: dict[str, list[KubernetesRun]] = {}
        self._opened: Cluster | None = None
        self._lock = threading.Lock()

    @property
    def cluster(self) -> Cluster:
        """The cluster; connected at the first use."""
        with self._lock:
            self._opened = self._opened or Cluster(self._settings)
            return self._opened

    def launch(self, name: str, job: TrainingJob, *, env: Mapping[str, str] | None = None) -> KubernetesRun:
        """See `Launcher.launch`."""
        folder = self.folder(name)  # refuses what is no name
        run = KubernetesRun(
            name,
            job,
            cluster=self.cluster,
            staging=self.staging(name, job),
            settings=self._settings,
            folder=folder,
            manifest=lambda: self._manifest(name, job, dict(env or {})),
        )
        with self._lock:
            self._runs.setdefault(name, []).append(run)
        return run

    def remove(self, name: str) -> bool:
        """See `Launcher.remove`. The Job itself stays, with its pods and logs, until its time to live is over."""
        with self._lock:
            runs = [run for run in self._runs.pop(name, []) if run.in_use]
            if runs:
                runs.pop(0).let_go()
                self._runs[name] = runs
        job = self.cluster.job(manifests.object_name(name))
        running = job is not None and not has_ended(job)
        if runs or running or (job is not None and followers.fresh(followers.marks(job))):
            return False
        remove(self._store, layout.jobs(name))
        shutil.rmtree(self.folder(name), ignore_errors=True)
        return True

    def folder(self, name: str) -> Path:
        """Where results of a job of that name are laid down."""
        return self._work / manifests.object_name(name)

    def staging(self, name: str, job: TrainingJob) -> Staging:
        """Where the job's files are in the store."""
        return Staging.of(self._store, name, job)

    def _manifest(self, name: str, job: TrainingJob, env: dict[str, str]) -> Any:
        from dagster_k8s.container_context import K8sContainerContext

        team = K8sContainerContext.create_from_config({"k8s": dict(self._settings.container)})
        return manifests.job_manifest(
            name,
            job,
            self.staging(name, job).folder,
            store=self._pods_store(),
            settings=self._settings,
            team=team.merge(self._team) if self._team else team,
            env=env,
        )

    @property
    def settings(self) -> KubernetesSettings:
        """Which cluster, and how."""
        return self._settings

    def _pods_store(self) -> str:
        if self._settings.store:
            return self._settings.store
        if local_folder(self._store.url) is not None:
            raise SetupError(
                "Pods cannot see the store: it is a folder of this machine.",
                where=self._store.url,
                fix="use a store that both can reach (ML_PLATFORM_STORE=s3://...), or mount it into the pods and say "
                "where: `store`, and `volumes` in `container`, in ML_PLATFORM_KUBERNETES",
            )
        return self._store.url
