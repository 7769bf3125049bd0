"""A Job that was launched or joined: followed to its end, its result taken, or ended."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_platform.errors import TrainingError
from ml_platform.launch.kubernetes import explain, manifests, usage
from ml_platform.launch.kubernetes.cluster import AwayError, Cluster, owner_of
from ml_platform.launch.kubernetes.followers import Follower
from ml_platform.launch.kubernetes.logs import Logs
from ml_platform.launch.kubernetes.starting import Starting
from ml_platform.launch.protocol import State, Status, differences
from ml_platform.launch.staging import Staging
from ml_platform.settings import KubernetesSettings
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import FolderResult

_log = logging.getLogger(__name__)
_LOG_SECONDS = 45.0
"""How long to wait at most for the last lines of a Job that has ended: longer than for an answer."""


class KubernetesRun:
    """A Job, launched or joined. See `protocol.Run`.

    Args:
        name: the artifact's fingerprint.
        job: what to train.
        cluster: where.
        staging: where the job's files are in the store.
        settings: how.
        folder: a local one, where results are laid down.
        manifest: makes the Job that is to be made, where it is.
    """

    def __init__(
        self,
        name: str,
        job: TrainingJob,
        *,
        cluster: Cluster,
        staging: Staging,
        settings: KubernetesSettings,
        folder: Path,
        manifest: Callable[[], Any],
    ) -> None:
        self._cluster, self._staging, self._settings, self._folder = cluster, staging, settings, folder
        self._job, self._object, self._manifest = job, manifests.object_name(name), manifest
        self._follower = Follower(self._cluster, self._object)
        self._logs = Logs(self._cluster)
        self._meter = usage.meter(staging)
        self._result: FolderResult | None = None
        self._error: TrainingError | None = None
        self._status = Status(State.WAITING)
        self._starting = Starting(self._cluster, settings.image_pull_seconds)
        self._waited, self._uid, self._looked, self._away = "", "", 0.0, False
        self.joined = True
        self.in_use = True
        there = self._cluster.job(self._object)
        if there is not None and not has_ended(there):
            self._join(there)
        elif not self._take_result():
            if there is not None:
                self._clear_away(there)
            self._start()
        elif there is not None:
            self._uid = there.metadata.uid
            self._logs.follow(self._pods(there))
            self._logs.finish(_LOG_SECONDS)

    def let_go(self) -> None:
        """Say that the result is not needed here any more."""
        self.in_use = False
        self._follower.leave(wait=False)

    def status(self) -> Status:
        """See `Run.status`. Waits only while the API server is away."""
        if not self._status.state.final and time.monotonic() - self._looked >= self._settings.poll_seconds:
            try:
                self._look()
            except AwayError:
                self._away = True
                raise
            self._looked = time.monotonic()
        return self._status

    def logs(self) -> Iterator[str]:
        """See `Run.logs`."""
        return self._logs.take()

    def result(self) -> FolderResult:
        """See `Run.result`."""
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise TrainingError(
                "The job has no result.", where=f"Job {self._object}", got=f"it is {self._status.state}"
            )
        return self._result

    def cancel(self) -> None:
        """See `Run.cancel`. The Job is ended unless another run follows it too, that it was joined does not matter:
        who had launched it may be long dead."""
        if self._status.state.final:
            self.let_go()
            return
        self.in_use = False
        self._meter.keep()
        if self._away:  # nobody asked for its end
            _log.warning("Job %s goes on without being followed; the next run joins it.", self._object)
            self._logs.finish(0)
            return
        if self._follower.leave(wait=True):
            self._cluster.delete(self._object, self._uid)
            self._cluster.wait_until_gone(self._object, self._uid, self._settings.poll_seconds)
        error = TrainingError("The training job was cancelled.", where=self._job.pipeline, passing=True)
        self._end(State.CANCELLED, error)

    def _start(self) -> None:
        """Make the Job, or join the one that somebody makes at the same time."""
        self._refuse_more()
        manifest = self._manifest()
        manifest.metadata.annotations |= self._follower.mark()
        self._staging.write(self._job)
        while (made := self._cluster.create_job(manifest)) is None:
            there = self._cluster.job(self._object)
            if there is not None and not has_ended(there):
                self._join(there)
                return
            if self._take_result():  # it was quick
                return
            if there is not None:
                self._clear_away(there)
            time.sleep(self._settings.poll_seconds)
        self.joined = False
        self._adopt(made)

    def _join(self, there: Any) -> None:
        mine = self._job.identity()
        annotations = there.metadata.annotations or {}
        theirs = json.loads(annotations.get(manifests.SPEC, "{}"))
        if differing := differences(theirs, mine):
            raise TrainingError(
                "A job of this name runs with another specification.",
                where=f"Job {self._object} in {self._settings.namespace}",
                got=f"a difference in {', '.join(differing)}"
                + "".join(f"\n    {key}: {how}" for key, how in differing.items()),
                fix="the fingerprint must cover whatever differs; until it does, run the stage again after that job",
            )
        self._adopt(there)

    def _adopt(self, job: Any) -> None:
        """Follow a Job. Its Service is made here too: who made the Job may have died before."""
        self._uid = job.metadata.uid
        self._cluster.create_service(manifests.service_manifest(job))
        self._follower.renew()

    def _clear_away(self, there: Any) -> None:
        """Remove a Job that has ended, or is about to be gone: its name is needed."""
        theirs = (there.metadata.annotations or {}).get(manifests.SPEC, "{}")
        if differing := differences(json.loads(theirs), self._job.identity()):
            how = "".join(f"\n    {key}: {text}" for key, text in differing.items())
            _log.warning("Job %s is a finished job of another specification: training anew.%s", self._object, how)
        else:
            self._count(there, self._pods(there))  # it may have run on while nobody followed it
            self._meter.keep()
            self._refuse_more()  # and leave it for whoever asks what it did
        self._cluster.delete(self._object, there.metadata.uid)
        self._cluster.wait_until_gone(self._object, there.metadata.uid, self._settings.poll_seconds)

    def _take_result(self) -> bool:
        """Take the result that the store has, if it has one."""
        if not self._staging.has_result():
            return False
        self._result = self._staging.fetch_result(self._folder / _own_folder() / "model")
        if self._result is not None:
            self._status = Status(State.SUCCEEDED)
        return self._result is not None

    def _pods(self, job: Any) -> list[Any]:
        return [pod for pod in self._cluster.pods(self._object) if owner_of(pod) == job.metadata.uid]

    def _refuse_more(self) -> None:
        """Refuse to start what has taken all that it may."""
        if (too_much := self._meter.used.beyond(self._job)) is not None:
            raise too_much

    def _count(self, job: Any, pods: list[Any]) -> None:
        self._meter.count(usage.counted(self._meter.used, job, pods))

    def _look(self) -> None:
        job = self._cluster.job(self._object)
        if job is not None and job.metadata.uid != self._uid and not has_ended(job):
            self._join(job)  # somebody made it anew
            self.joined = True
        if job is None or job.metadata.uid != self._uid:
            self._gone()
            return
        pods = self._pods(job)
        self._logs.follow(pods)
        self._count(job, pods)
        if explain.condition(job, "Complete"):
            self._logs.finish(_LOG_SECONDS)
            if self._take_result():
                self._end(State.SUCCEEDED)
                return
            what = "The training job ended well, but its result is not in the store."
            self._end(State.FAILED, TrainingError(what, where=f"Job {self._object}", got=self._staging.folder))
        elif explain.condition(job, "Failed"):
            self._logs.finish(_LOG_SECONDS)
            self._end(State.FAILED, explain.why_failed(job, pods, self._logs.tails(), self._waited))
        elif not explain.condition(job, "FailureTarget"):  # else its pods are being ended: what they say is no news
            self._follower.renew()
            if manifests.ENDED not in (job.metadata.annotations or {}) and (why := self._starting.given_up(pods)):
                self._cluster.end(self._object, {manifests.ENDED: why})
            restarts = (job.status.failed or 0) // manifests.pods_of(self._job, self._settings)
            waits = explain.waits_for(job, pods, self._cluster, self._settings.queue)
            if waits and (waits != explain.NO_PODS or not self._waited):  # at its deadline a Job loses its pods first
                self._waited = waits
            state = State.WAITING if waits else State.RUNNING
            self._status = Status(state, waits, restarts, manifests.gpus_of(job), self._meter.used)

    def _gone(self) -> None:
        """The Job is not there any more: its time to live is over, or somebody has deleted it."""
        self._logs.finish(_LOG_SECONDS)
        if self._take_result():
            self._end(State.SUCCEEDED)
            return
        what = "The training job was deleted from outside."
        self._end(State.LOST, TrainingError(what, where=f"Job {self._object}", passing=True))

    def _end(self, state: State, error: TrainingError | None = None) -> None:
        self._error = error
        self._status = Status(state, str(error or ""), self._status.restarts, used=self._meter.used)
        self._logs.finish(0)
        if state is not State.SUCCEEDED:
            self._meter.keep()
            self.let_go()


def has_ended(job: Any) -> bool:
    """Whether nothing more will happen in a Job."""
    over = explain.condition(job, "Complete") or explain.condition(job, "Failed")
    return job.metadata.deletion_timestamp is not None or over is not None


def _own_folder() -> str:
    return f"{time.time_ns():x}-{threading.get_ident():x}"
