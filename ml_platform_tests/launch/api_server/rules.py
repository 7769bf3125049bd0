"""What a cluster refuses: manifests that its schema does not know, Jobs that break its rules, and pods that are not
`restricted` (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_ALLOWED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}


def wrong_job(job: dict[str, Any]) -> Iterator[str]:
    """What the API server says of a Job beside its schema (pkg/apis/batch/validation of Kubernetes)."""
    spec, name = job["spec"], job["metadata"]["name"]
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        yield f"metadata.name: {name!r} is not a DNS label"
    if len(f"{name}-{spec['completions'] - 1}") > 63:
        yield "metadata.name: a pod's host name would be too long"
    policy = spec.get("podFailurePolicy")
    if policy and spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "spec.podFailurePolicy: only with restartPolicy Never"
    if policy and spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "spec.podReplacementPolicy: only Failed, with a podFailurePolicy"
    for rule in (policy or {}).get("rules", ()):
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield "spec.podFailurePolicy.rules: one of onExitCodes and onPodConditions"
        codes = rule.get("onExitCodes", {}).get("values", [0])
        if codes != sorted(set(codes)):
            yield "spec.podFailurePolicy.rules.onExitCodes.values: ordered, and each once"
        if rule.get("onExitCodes", {}).get("operator") == "In" and 0 in codes:
            yield "spec.podFailurePolicy.rules.onExitCodes.values: not 0 with In"


def not_restricted(pod: dict[str, Any]) -> Iterator[str]:
    """In which ways a pod's spec breaks the standard `restricted`."""
    whole = pod.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield key
    for volume in pod.get("volumes", ()):
        if kinds := set(volume) - {"name"} - _ALLOWED_VOLUMES:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        own, name = container.get("securityContext", {}), container["name"]
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation != false"
        if "ALL" not in own.get("capabilities", {}).get("drop", ()):
            yield f"{name}: capabilities.drop lacks ALL"
        if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities.add"
        if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
            yield f"{name}: runAsNonRoot != true"
        if own.get("runAsUser", whole.get("runAsUser")) == 0:
            yield f"{name}: runAsUser = 0"
        seccomp = own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
        if seccomp not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile.type"
        if any("hostPort" in port for port in container.get("ports", ())):
            yield f"{name}: hostPort"
