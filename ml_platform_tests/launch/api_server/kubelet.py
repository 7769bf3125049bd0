"""Pods as processes of this machine. The image is this Python with this project; the network is the loopback."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from ml_platform_tests.launch.api_server.objects import Object, Objects, now, set_condition

REPOSITORY = Path(__file__).parents[3]
_IMAGE = re.compile(r"[a-z0-9]+([._/-][a-z0-9]+)*(:\d+/[a-z0-9/._-]+)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?")


class Kubelet:
    """Runs pods.

    Attributes:
        images: what can be pulled.
        secrets: what pods may take variables from.
        cpus: what the node has; a pod that asks for more is not scheduled.
    """

    def __init__(self, objects: Objects, folder: Path) -> None:
        self.images, self.secrets, self.cpus = {"project:1"}, set[str](), 8
        self._objects, self._folder = objects, folder
        self._running: dict[str, Process] = {}
        self._tries: dict[str, int] = {}
        self._addresses: dict[str, tuple[int, int]] = {}

    def sync(self, pod: Object) -> None:
        """Bring a pod one step on."""
        uid, status = pod["metadata"]["uid"], pod["status"]
        process = self._running.get(uid)
        if process is not None:
            self._look(pod, process)
        elif "deletionTimestamp" in pod["metadata"]:
            status["phase"] = "Failed" if status["phase"] != "Succeeded" else "Succeeded"
        elif status["phase"] == "Pending":
            self._start(pod)

    def log(self, pod: Object) -> tuple[Path, bool]:
        """Where a pod's log is, each line after its time; and whether it is complete."""
        process = self._running.get(pod["metadata"]["uid"])
        return self._of(pod) / "log", process is None or process.drained.is_set()

    def signal(self, pod: Object, number: signal.Signals) -> None:
        """Send a signal to a pod's first process."""
        if process := self._running.get(pod["metadata"]["uid"]):
            process.signal(number)

    def pid(self, pod: Object) -> int:
        """The process id of a pod's first process."""
        return self._running[pod["metadata"]["uid"]].popen.pid

    def stop(self) -> None:
        """Kill everything."""
        for process in self._running.values():
            process.signal(signal.SIGKILL)
            process.popen.wait()

    def _of(self, pod: Object) -> Path:
        return self._folder / str(pod["metadata"]["uid"])

    def _start(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        wanted = float(container.get("resources", {}).get("requests", {}).get("cpu", 1))
        if wanted > self.cpus:
            message = f"0/1 nodes are available: 1 Insufficient cpu. {wanted} wanted, {self.cpus} there."
            set_condition(pod, "PodScheduled", "Unschedulable", message, "False")
            return
        set_condition(pod, "PodScheduled", "Scheduled", "")
        if waiting := self._not_startable(pod, container):
            self._say(pod, {"waiting": waiting})
            return
        if self._objects.get("services", pod["metadata"]["namespace"], pod["spec"]["subdomain"]) is None:
            return  # its name would not resolve: it would wait for that itself
        folder = self._of(pod)
        shutil.rmtree(folder, ignore_errors=True)
        for volume in (mount["mountPath"] for mount in container.get("volumeMounts", ())):
            (folder / volume.lstrip("/")).mkdir(parents=True)
        (folder / "termination-log").touch()
        env = {each["name"]: self._value(pod, each) for each in container.get("env", ())}
        env["JOB_COMPLETION_INDEX"] = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        command = [*container["command"], *container.get("args", ())]
        command = [re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), word) for word in command]
        command[0] = sys.executable if command[0] == "python" else command[0]
        here = {name: self._here(pod, value) for name, value in env.items()}
        node = {"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
        self._running[pod["metadata"]["uid"]] = Process(
            [self._here(pod, word) for word in command], {**node, **here}, folder
        )
        pod["status"]["phase"] = "Running"
        self._say(pod, {"running": {"startedAt": now()}})

    def _not_startable(self, pod: Object, container: Object) -> Object | None:
        """What the kubelet says of a container that it cannot start (pkg/kubelet/images, kuberuntime). A pull that
        fails is tried again after a while, in which it only says that it holds back."""
        image = container["image"]
        if not _IMAGE.fullmatch(image):
            words = f'Failed to apply default image tag "{image}": couldn\'t parse image name: invalid reference format'
            return {"reason": "InvalidImageName", "message": words}
        if image not in self.images:
            tries = self._tries[pod["metadata"]["uid"]] = self._tries.get(pod["metadata"]["uid"], -1) + 1
            if tries % 10 > 2:
                return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}
            words = f'failed to pull and unpack image "docker.io/library/{image}": not found'
            if tries % 10 == 0:
                self._objects.event(pod, "Failed", f'Failed to pull image "{image}": {words}')
                self._objects.event(pod, "Failed", "Error: ErrImagePull")
            return {"reason": "ErrImagePull", "message": words}
        named = [each["secretRef"]["name"] for each in container.get("envFrom", ()) if "secretRef" in each]
        missing = [name for name in named if name not in self.secrets]
        return (
            {"reason": "CreateContainerConfigError", "message": f'secret "{missing[0]}" not found'} if missing else None
        )

    def _value(self, pod: Object, each: Object) -> str:
        if "value" in each:
            return str(each["value"])
        path = each["valueFrom"]["fieldRef"]["fieldPath"]
        match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        assert match is not None, path
        return str(pod["metadata"][match[1]][match[2]])

    def _here(self, pod: Object, text: str) -> str:
        """A text of the pod's, with its file system and the names of its network as they are here."""
        folder = self._of(pod)
        for mount in pod["spec"]["containers"][0].get("volumeMounts", ()):
            path = mount["mountPath"]
            text = re.sub(rf"(?<![\w/]){re.escape(path)}(?=/|$)", lambda _, path=path: str(folder) + path, text)
        text = text.replace("/dev/termination-log", str(folder / "termination-log"))
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        service = pod["spec"]["subdomain"]
        network, port = self._network(job)
        text = re.sub(
            rf"{re.escape(job)}-(\d+)\.{re.escape(service)}", lambda m: f"127.0.{network}.{int(m[1]) + 2}", text
        )
        return text.replace(":29400", f":{port}")

    def _network(self, job: str) -> tuple[int, int]:
        """The third number of a job's addresses, and a port that is free."""
        if job not in self._addresses:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._addresses[job] = (len(self._addresses) % 250 + 1, probe.getsockname()[1])
        return self._addresses[job]

    def _look(self, pod: Object, process: Process) -> None:
        meta = pod["metadata"]
        code = process.popen.poll()
        if code is None or not process.drained.is_set():
            if "deletionTimestamp" in meta:
                process.end(pod["spec"].get("terminationGracePeriodSeconds", 30))
            return
        del self._running[meta["uid"]]
        code = code if code >= 0 else 128 - code
        said = (self._of(pod) / "termination-log").read_text(errors="replace")[:4096]
        if not said and code:
            lines = self.log(pod)[0].read_text(errors="replace").splitlines()[-80:]
            said = "\n".join(line.partition(" ")[2] for line in lines)[-2048:]
        reason = "OOMKilled" if process.out_of_memory else "Completed" if code == 0 else "Error"
        pod["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
        began = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        times = {"startedAt": began, "finishedAt": now()}
        ended = {"exitCode": code, "reason": reason, "message": said or None, **times}
        self._say(pod, {"terminated": ended})

    def _say(self, pod: Object, state: Object) -> None:
        container = pod["spec"]["containers"][0]
        pod["status"]["containerStatuses"] = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "restartCount": 0,
                "ready": "running" in state,
                "state": state,
            }
        ]
        self._objects.touch(pod)

    def kill_for_memory(self, pod: Object) -> None:
        """End a pod as the kernel does that finds its cgroup out of memory."""
        process = self._running[pod["metadata"]["uid"]]
        process.out_of_memory = True
        process.signal(signal.SIGKILL)


class Process:
    """A container: a process in a group of its own, whose lines are kept with their times."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path) -> None:
        self.popen = subprocess.Popen(
            command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.drained, self.out_of_memory = threading.Event(), False
        self._asked_at = 0.0
        threading.Thread(target=self._pump, args=(folder / "log",), daemon=True).start()

    def signal(self, number: signal.Signals) -> None:
        """Send it to the first process, as the container runtime does; SIGKILL to all of them."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.popen.pid, number) if number != signal.SIGKILL else os.killpg(self.popen.pid, number)

    def end(self, grace: float) -> None:
        """Ask it to end, once; kill it when its time is over."""
        if not self._asked_at:
            self._asked_at = time.monotonic()
            self.signal(signal.SIGTERM)
        elif time.monotonic() - self._asked_at > grace:
            self.signal(signal.SIGKILL)

    def _pump(self, path: Path) -> None:
        assert self.popen.stdout is not None
        with path.open("wb", buffering=0) as file:
            for line in self.popen.stdout:
                seconds, rest = divmod(time.time_ns(), 10**9)
                stamp = f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
                file.write(stamp.encode() + b" " + line.rstrip(b"\n") + b"\n")
        self.popen.wait()
        self.drained.set()
