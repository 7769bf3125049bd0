"""What the API server keeps: objects as JSON, by kind, namespace and name."""

from __future__ import annotations

import copy
import datetime as dt
import threading
import uuid
from typing import Any

Object = dict[str, Any]
KINDS = {"jobs": "Job", "pods": "Pod", "services": "Service", "events": "Event", "workloads": "Workload"}
_VERSIONS = {"jobs": "batch/v1", "workloads": "kueue.x-k8s.io/v1beta1"}


def now() -> str:
    """This moment, as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Objects:
    """Everything there is. Who reads more than one thing, or changes one, holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._kept: dict[tuple[str, str, str], Object] = {}
        self._version = 0

    def create(self, kind: str, namespace: str, body: Object) -> Object | None:
        """Keep a new object. None where there is one of that name."""
        with self.lock:
            meta = body.setdefault("metadata", {})
            key = (kind, namespace, meta["name"])
            if key in self._kept:
                return None
            meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now()}
            body |= {"kind": KINDS[kind], "apiVersion": _VERSIONS.get(kind, "v1")}
            self._kept[key] = body
            self.touch(body)
            return body

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """One object."""
        return self._kept.get((kind, namespace, name))

    def all(self, kind: str, namespace: str | None = None) -> list[Object]:
        """All of a kind."""
        with self.lock:
            return [o for (k, n, _), o in self._kept.items() if k == kind and namespace in (None, n)]

    def remove(self, kind: str, body: Object) -> None:
        """Forget an object."""
        with self.lock:
            self._kept.pop((kind, body["metadata"]["namespace"], body["metadata"]["name"]), None)

    def touch(self, body: Object) -> None:
        """Say that an object has changed."""
        with self.lock:
            self._version += 1
            body["metadata"]["resourceVersion"] = str(self._version)

    def event(self, about: Object, reason: str, message: str) -> None:
        """Record a warning about an object."""
        meta = about["metadata"]
        involved = {"kind": about["kind"], "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
        body = {
            "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:12]}"},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": "Warning",
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "count": 1,
        }
        self.create("events", meta["namespace"], body)


def condition(body: Object, kind: str) -> Object | None:
    """A condition of an object that holds."""
    found = body.get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind and c["status"] == "True"), None)


def set_condition(body: Object, kind: str, reason: str, message: str, status: str = "True") -> None:
    """Let a condition hold, or not."""
    conditions = body.setdefault("status", {}).setdefault("conditions", [])
    conditions[:] = [c for c in conditions if c["type"] != kind]
    conditions.append(
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
    )


def merged(onto: Object, patch: Object) -> Object:
    """A merge patch (RFC 7396) applied."""
    result = copy.copy(onto)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merged(result.get(key) or {}, value)
        else:
            result[key] = value
    return result


def selected(body: Object, labels: str, fields: str) -> bool:
    """Whether an object is meant by a label selector and a field selector, both of equalities."""
    for term in filter(None, labels.split(",")):
        key, _, value = term.partition("=")
        if (body["metadata"].get("labels") or {}).get(key) != value:
            return False
    for term in filter(None, fields.split(",")):
        path, _, value = term.partition("=")
        found: Any = body
        for part in path.split("."):
            found = found.get(part, {})
        if found != value:
            return False
    return True
