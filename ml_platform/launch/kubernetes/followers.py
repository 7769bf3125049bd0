"""Who wants a Job: a mark on it from everyone who follows it, renewed as long as they do.

A mark is an annotation that holds a time. One that is not renewed is of somebody who died: it wants nothing. So whoever
cancels ends a Job only when nobody else follows it, and the sweeper sees how long nobody did.
"""

from __future__ import annotations

import datetime as dt
import secrets
import time
from typing import Any

from ml_platform.launch.kubernetes.cluster import Cluster

_MARK = "ml-platform/follower-"
RENEWED_SECONDS = 10.0
DEAD_SECONDS = 45.0
"""A mark that is older is of somebody who died: well beyond what a busy process misses."""


class Follower:
    """This process, following one Job.

    Args:
        cluster: where it is.
        job: its name.
    """

    def __init__(self, cluster: Cluster, job: str) -> None:
        self._cluster, self._job = cluster, job
        self._key = f"{_MARK}{secrets.token_hex(6)}"
        self._renewed = 0.0

    def mark(self) -> dict[str, str]:
        """The annotation with which a Job is wanted from its first moment on."""
        return {self._key: _now()}

    def renew(self) -> None:
        """Say that the Job is wanted; does nothing where that was said a moment ago."""
        if time.monotonic() - self._renewed > RENEWED_SECONDS:
            self._cluster.annotate(self._job, self.mark())
            self._renewed = time.monotonic()

    def leave(self, *, wait: bool) -> bool:
        """Say that it is not wanted here any more.

        Args:
            wait: until it is plain whether those who also follow it are alive.

        Returns:
            Whether nobody else wants it.
        """
        job = self._cluster.annotate(self._job, {self._key: None})
        self._renewed = 0.0
        if job is None:
            return True
        before = marks(job)
        until = time.monotonic() + DEAD_SECONDS
        while fresh(before) and wait and time.monotonic() < until:
            time.sleep(1.0)
            job = self._cluster.job(self._job)
            if job is None:
                return True
            after = marks(job)
            if any(before.get(key) != value for key, value in after.items()):
                return False  # somebody has renewed theirs
            before = after
        return not fresh(before)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def marks(job: Any) -> dict[str, dt.datetime]:
    """When each follower last said that it wants the Job."""
    found = (job.metadata.annotations or {}).items()
    return {key: dt.datetime.fromisoformat(value) for key, value in found if key.startswith(_MARK)}


def fresh(found: dict[str, dt.datetime]) -> bool:
    """Whether one of them may be alive."""
    limit = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=DEAD_SECONDS)
    return any(when > limit for when in found.values())


def last_wanted(job: Any) -> dt.datetime:
    """When somebody last wanted the Job."""
    made: dt.datetime = job.metadata.creation_timestamp
    return max([made, *marks(job).values()])
