"""Pods that cannot start: given up when it is plain that waiting does not help, long before the job's deadline.

An image whose name is wrong stays wrong. A Secret that is missing may be made a moment later. A registry may be away
for minutes, and the kubelet tries again and again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ml_platform.launch.kubernetes.cluster import Cluster, index_of
from ml_platform.launch.kubernetes.explain import stuck

GRACE_SECONDS = 30.0
"""For what may be put right from outside at any moment, and by then should have been."""
_HOPELESS = frozenset({"InvalidImageName"})
_MENDABLE = frozenset({"CreateContainerConfigError", "ErrImageNeverPull"})
_PULLED_AGAIN = frozenset({"ErrImagePull", "ImagePullBackOff"})


class Starting:
    """The pods of one Job, for as long as somebody looks at them.

    Args:
        cluster: where they are.
        image_pull_seconds: how long pulling an image may fail.
    """

    def __init__(self, cluster: Cluster, image_pull_seconds: float) -> None:
        self._cluster, self._pull_seconds = cluster, image_pull_seconds
        self._since: dict[str, float] = {}

    def given_up(self, pods: Sequence[Any]) -> str:
        """Why the Job is hopeless, with its pods, their images and what the kubelet said; "" while there is hope."""
        now = time.monotonic()
        held = {pod.metadata.uid: pod for pod in pods if self._patience(stuck(pod)[0]) is not None}
        self._since = {uid: self._since.get(uid, now) for uid in held}
        over = [pod for uid, pod in held.items() if now - self._since[uid] >= (self._patience(stuck(pod)[0]) or 0.0)]
        return "; ".join(map(self._told, over))

    def _patience(self, reason: str) -> float | None:
        """Seconds for which it may last; None where it is not for us to judge."""
        if reason in _HOPELESS:
            return 0.0
        if reason in _MENDABLE:
            return min(GRACE_SECONDS, self._pull_seconds)
        return self._pull_seconds if reason in _PULLED_AGAIN else None

    def _told(self, pod: Any) -> str:
        images = ", ".join(container.image for container in pod.spec.containers)
        # While it holds back, the kubelet need not repeat why the last try failed; its events do.
        failed = [event.message for event in self._cluster.events(pod.metadata.name) if event.reason == "Failed"]
        last = next((message for message in reversed(failed) if not message.startswith("Error: ")), "")
        return f"pod {index_of(pod)} (image {images}): {stuck(pod)[1]}" + (f"; {last}" if last else "")
