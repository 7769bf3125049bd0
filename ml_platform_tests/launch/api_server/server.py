"""The HTTP side, and the loop that keeps Jobs and pods going."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import kubernetes_validate
import yaml

from ml_platform_tests.launch.api_server.controller import JobController
from ml_platform_tests.launch.api_server.kubelet import Kubelet
from ml_platform_tests.launch.api_server.objects import KINDS, Object, Objects, merged, now, selected, set_condition
from ml_platform_tests.launch.api_server.rules import wrong_job

VERSION = "1.36"
_GROUPS = {"": "v1", "batch": "v1", "kueue.x-k8s.io": "v1beta1"}
"""The API groups that there are, each with its version."""


class ApiServer:
    """A cluster of one node.

    Args:
        folder: for pods, and for the kubeconfig.
        backoff: see `JobController`.
    """

    def __init__(self, folder: Path, *, backoff: float = 0.2) -> None:
        self.objects = Objects()
        self.kubelet = Kubelet(self.objects, folder / "pods")
        self.trouble: Callable[[str, str], int | None] = lambda method, path: None
        """Asked about every request, by method and path: None lets it pass; a status answers so; 0 hangs up,
        and -N does so after N seconds."""
        self.requests: list[tuple[str, str]] = []
        self._controller = JobController(self.objects, backoff)
        self._ending = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"api": self}))
        self._http.daemon_threads = True
        self.kubeconfig = folder / "kubeconfig"
        folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{self._http.server_port}")))

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self._loop_thread = threading.Thread(target=self._loop, daemon=True)
        self._loop_thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._loop_thread.join()
        self.kubelet.stop()
        self._http.shutdown()
        self._http.server_close()

    def pods(self, job: str = "") -> list[Object]:
        """Pods, of one Job where it is named; those that run first, by index."""
        found = [p for p in self.objects.all("pods") if p["metadata"]["name"].startswith(job)]
        return sorted(found, key=lambda p: (p["status"]["phase"] != "Running", p["metadata"]["name"]))

    def disrupt(self, pod: Object, reason: str = "PreemptionByScheduler") -> None:
        """End a pod as a preemption does."""
        with self.objects.lock:
            set_condition(pod, "DisruptionTarget", reason, "something more urgent needs its place")
            pod["metadata"]["deletionTimestamp"] = now()

    def kill(self, pod: Object) -> None:
        """Kill a pod's processes."""
        self.kubelet.signal(pod, signal.SIGKILL)

    def _loop(self) -> None:
        while not self._ending.wait(0.05):
            with self.objects.lock:
                for pod in self.objects.all("pods"):
                    self.kubelet.sync(pod)
                for job in self.objects.all("jobs"):
                    self._controller.sync(job)


def _kubeconfig(url: str) -> Object:
    named = {"name": "tests", "context": {"cluster": "tests", "user": "tests"}}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [named],
        "clusters": [{"name": "tests", "cluster": {"server": url}}],
        "users": [{"name": "tests", "user": {"token": "none"}}],
    }


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    api: ApiServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        """Nothing: tests look at `requests`."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PATCH(self) -> None:
        self._handle("PATCH")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.api.requests.append((method, parts.path))
        trouble = self.api.trouble(method, parts.path)
        if trouble is not None:
            if trouble <= 0:  # after so many seconds without an answer
                time.sleep(-trouble)
                self.close_connection = True
            else:
                self._fail(trouble, "in trouble")
            return
        words = parts.path.strip("/").split("/")
        group, version, *words = words[1:] if words[0] == "apis" else ["", *words[1:]]
        if _GROUPS.get(group) != version:
            self._fail(404, "no such group, or not in this version")
            return
        if len(words) < 3 or words[0] != "namespaces" or words[2] not in KINDS:
            self._fail(404, "no such resource")
            return
        _, namespace, kind, *rest = words
        if rest[1:] == ["log"]:
            self._log(namespace, rest[0], query)
            return
        with self.api.objects.lock:
            status, answer = self._answer(method, namespace, kind, rest, query, body)
        if status >= 400:
            self._fail(status, str(answer))
        else:
            self._send(status, answer)

    def _answer(
        self, method: str, namespace: str, kind: str, rest: list[str], query: dict[str, str], body: Object
    ) -> tuple[int, Any]:
        objects = self.api.objects
        if method == "POST":
            return self._create(namespace, kind, body)
        if not rest:
            labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
            items = [each for each in objects.all(kind, namespace) if selected(each, labels, fields)]
            return 200, {"kind": f"{KINDS[kind]}List", "apiVersion": "v1", "metadata": {}, "items": items}
        there = objects.get(kind, namespace, rest[0])
        if there is None:
            return 404, f"{kind} {rest[0]!r} not found"
        meta = there["metadata"]
        if method == "PATCH":
            there.update(merged(there, body))
            objects.touch(there)
        elif method == "DELETE":
            wanted = (body.get("preconditions") or {}).get("uid", meta["uid"])
            if wanted != meta["uid"]:
                return 409, "the UID in the precondition does not match"
            meta.setdefault("deletionTimestamp", now())
        return 200, there

    def _create(self, namespace: str, kind: str, body: Object) -> tuple[int, Any]:
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            return 422, f"{error.message} at {list(error.path)}"
        if kind == "jobs" and (wrong := list(wrong_job(body))):
            return 422, "; ".join(wrong)
        made = self.api.objects.create(kind, namespace, body)
        return (201, made) if made is not None else (409, f"{kind} {body['metadata']['name']!r} already exists")

    def _log(self, namespace: str, name: str, query: dict[str, str]) -> None:
        pod = self.api.objects.get("pods", namespace, name)
        if pod is None:
            self._fail(404, f"pods {name!r} not found")
            return
        path, _ = self.api.kubelet.log(pod)
        if not path.exists():
            self._fail(400, "container is waiting to start")
            return
        stamps = query.get("timestamps", "").lower() == "true"

        def text(lines: list[bytes]) -> bytes:
            return b"".join(line if stamps else line.partition(b" ")[2] for line in lines)

        if query.get("follow", "").lower() != "true":
            lines = path.read_bytes().splitlines(keepends=True)
            self._send_text(text(lines[-int(query.get("tailLines", len(lines) or 1)) :]))
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        place = 0
        try:
            while True:
                complete = self.api.kubelet.log(pod)[1]
                with path.open("rb") as file:
                    file.seek(place)
                    new = file.read()
                new = new[: new.rfind(b"\n") + 1]
                place += len(new)
                if new:
                    block = text(new.splitlines(keepends=True))
                    self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                    self.wfile.flush()
                if complete and not new:
                    self.wfile.write(b"0\r\n\r\n")
                    return
                if self.api.trouble("LOG", self.path) is not None:
                    self.close_connection = True
                    return
                time.sleep(0.02)
        except OSError:
            self.close_connection = True

    def _fail(self, code: int, message: str) -> None:
        self._send(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code})

    def _send(self, code: int, body: Any) -> None:
        with self.api.objects.lock:
            data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_text(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
