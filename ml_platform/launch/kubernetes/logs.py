"""The logs of all pods of a Job, followed at once: a thread for each."""

from __future__ import annotations

import datetime as dt
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from ml_platform.launch.failure import TAIL
from ml_platform.launch.kubernetes.cluster import Cluster, index_of

_AGAIN_SECONDS = 1.0
_OVERLAP_SECONDS = 60
"""A stream that broke is taken up so much earlier: clocks differ. What was seen is told by its timestamp."""
_BEGUN = frozenset({"Running", "Succeeded", "Failed"})


class Logs:
    """Lines in the order in which they come. Those of pods beside the first say which one they are of."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._last: dict[int, deque[str]] = {}
        self._followed: dict[str, threading.Thread] = {}
        self._stopped = threading.Event()

    def follow(self, pods: list[Any]) -> None:
        """Follow those pods that have begun, each from its first line, unless they are followed already."""
        for pod in pods:
            uid = pod.metadata.uid
            if uid not in self._followed and pod.status.phase in _BEGUN:
                self._last.setdefault(index_of(pod), deque(maxlen=TAIL))
                thread = threading.Thread(target=self._follow, args=(pod.metadata.name, index_of(pod)), daemon=True)
                self._followed[uid] = thread
                thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until every pod's log was read to its end, but no longer than that; then stop."""
        until = time.monotonic() + seconds
        for thread in self._followed.values():
            thread.join(max(0.0, until - time.monotonic()))
        self._stopped.set()

    def take(self) -> Iterator[str]:
        """Lines since the last call."""
        while True:
            try:
                yield self._lines.get_nowait()
            except queue.Empty:
                return

    def tails(self) -> list[str]:
        """The last lines of every pod, by index."""
        return [f"[pod {index}] {line}" for index in sorted(self._last) for line in tuple(self._last[index])]

    def _follow(self, pod: str, index: int) -> None:
        import kubernetes
        import urllib3

        seen = ""
        while not self._stopped.is_set():
            try:
                stream = self._cluster.log(pod, _since(seen))
                for stamp, line in _lines(stream):
                    if self._stopped.is_set():
                        return
                    if stamp > seen:
                        self._lines.put(f"[pod {index}] {line}" if index else line)
                        self._last[index].append(line)
                        seen = stamp
                return  # the pod has ended, and this was its last line
            except kubernetes.client.ApiException as error:
                if error.status == 404:
                    return  # the pod is gone, and its log with it
            except (urllib3.exceptions.HTTPError, OSError):
                pass  # broken off, or silent
            self._stopped.wait(_AGAIN_SECONDS)


def _since(stamp: str) -> int | None:
    """Seconds to look back for lines after that timestamp, with some to spare."""
    if not stamp:
        return None
    then = dt.datetime.fromisoformat(f"{stamp[:19]}+00:00")
    return max(1, int((dt.datetime.now(dt.UTC) - then).total_seconds()) + _OVERLAP_SECONDS)


def _lines(stream: Any) -> Iterator[tuple[str, str]]:
    """Timestamp (RFC 3339 in nanoseconds: as texts they are in order) and text of each line."""
    held = b""
    for block in stream.stream(decode_content=True):
        *whole, held = (held + block).split(b"\n")
        for line in whole:
            stamp, _, text = line.decode(errors="replace").partition(" ")
            yield stamp, text
    if held:
        stamp, _, text = held.decode(errors="replace").partition(" ")
        yield stamp, text
