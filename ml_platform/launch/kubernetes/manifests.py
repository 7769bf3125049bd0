"""What is asked of Kubernetes: an Indexed Job, and the headless Service by whose name its pods find each other.

What was measured on a cluster (1.36) stands behind the rendezvous: the Service has no address and publishes pods that
are not ready; the template has its name as `subdomain` and no `hostname`; c10d meets at index 0, by the Job's uid.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from ml_platform.errors import TrainingError
from ml_platform.launch.kubernetes import codes
from ml_platform.launch.kubernetes.cluster import JOB_LABEL, MANAGED
from ml_platform.settings import KubernetesSettings
from ml_platform.training.config import TrainingJob
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from dagster_k8s.container_context import K8sContainerContext

CONTAINER = "train"
NAME, PIPELINE, SPEC, SPEC_HASH = (f"ml-platform/{each}" for each in ("name", "pipeline", "spec", "spec-hash"))
"""Annotations: the job's name; whose model it is; what two launches must agree on, as JSON, and its hash."""
ENDED = "ml-platform/ended"
"""Annotation: why a launcher has ended the Job."""
PORT = 29400
SCRATCH = "/scratch"
_UID = {
    "name": "JOB_UID",
    "value_from": {"field_ref": {"field_path": "metadata.labels['batch.kubernetes.io/controller-uid']"}},
}
_GPU = re.compile(r"/(gpu|mig-)")
"""Resources that are a GPU, or a part of one: nvidia.com/gpu, amd.com/gpu, nvidia.com/mig-1g.10gb."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def object_name(name: str) -> str:
    """The name of the Job and its Service: a DNS label with room for a pod's index and suffix.

    Raises:
        TrainingError: not a name for a job.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise TrainingError("A job's name is letters, digits, dots, dashes and underscores.", got=repr(name))
    if not _LABEL.fullmatch(name):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24]
        name = f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return f"train-{name}"


def pods_of(job: TrainingJob, settings: KubernetesSettings) -> int:
    """How many pods a job has.

    Raises:
        TrainingError: its ranks do not fill them evenly.
    """
    pods, rest = divmod(job.recipe.processes, settings.processes_per_pod)
    if rest:
        raise TrainingError(
            "The recipe's processes do not fill pods evenly.",
            where=job.pipeline,
            got=f"{job.recipe.processes} processes, {settings.processes_per_pod} a pod",
            fix="change Recipe.processes, or processes_per_pod in ML_PLATFORM_KUBERNETES",
        )
    return pods


def gpus_of(job: Any) -> int:
    """How many GPUs the pods of a Job take, used or not: what they are limited to, whoever made them."""
    limits = [
        container.resources.limits or {} for container in job.spec.template.spec.containers if container.resources
    ]
    return int(job.spec.parallelism) * sum(
        int(count) for each in limits for name, count in each.items() if _GPU.search(name)
    )


def job_manifest(
    name: str,
    job: TrainingJob,
    folder: str,
    *,
    store: str,
    settings: KubernetesSettings,
    team: K8sContainerContext,
    env: dict[str, str],
) -> Any:
    """The Job, as a V1Job.

    Args:
        name: the artifact's fingerprint.
        job: what to train.
        folder: its folder in the store.
        store: the store's URL for pods.
        settings: of the platform.
        team: dagster-k8s's configuration; it may add to and change whatever the job does not stand on.
        env: further environment variables.
    """
    import kubernetes
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import UserDefinedDagsterK8sConfig
    from dagster_k8s.models import k8s_model_from_dict

    if not settings.image and "image" not in team.run_k8s_config.container_config:
        raise TrainingError(
            "There is no image for the training job.",
            where="ML_PLATFORM_KUBERNETES",
            fix='{"image": ...}: the project, installed, at the revision that launches',
        )
    ours = K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig(**_defaults(settings, store, env, job)))
    merged = ours.merge(team).run_k8s_config
    container = {**merged.container_config, **_fixed_container(name, job, folder, settings)}
    container["env"] = [*container.get("env", ()), _UID]
    pod: dict[str, Any] = {"restart_policy": "Never", **merged.pod_spec_config, "subdomain": object_name(name)}
    pod["containers"] = [container, *pod.get("containers", ())]
    template = {"metadata": _labelled(merged.pod_template_spec_metadata), "spec": pod}
    metadata = _labelled(merged.job_metadata)
    metadata["name"] = object_name(name)
    identity = job.identity()
    metadata["annotations"] = {
        **metadata.get("annotations", {}),
        NAME: name,
        PIPELINE: job.pipeline,
        SPEC: json.dumps(identity, sort_keys=True),
        SPEC_HASH: short_hash(identity),
    }
    if settings.queue:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = settings.queue
    spec = {**merged.job_spec_config, **_fixed_spec(job, settings), "template": template}
    return k8s_model_from_dict(
        kubernetes.client.V1Job, {"api_version": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    )


def service_manifest(job: Any) -> Any:
    """The headless Service of a Job that was made (its uid is known), owned by it. A V1Service."""
    from kubernetes import client

    name = job.metadata.name
    return client.V1Service(
        api_version="v1",
        kind="Service",
        metadata=client.V1ObjectMeta(
            name=name,
            labels=dict(MANAGED),
            owner_references=[
                client.V1OwnerReference(
                    api_version="batch/v1",
                    kind="Job",
                    name=name,
                    uid=job.metadata.uid,
                    controller=True,
                )
            ],
        ),
        spec=client.V1ServiceSpec(
            cluster_ip="None",
            publish_not_ready_addresses=True,
            selector={JOB_LABEL: name},
            ports=[client.V1ServicePort(name="rendezvous", port=PORT)],
        ),
    )


def _defaults(settings: KubernetesSettings, store: str, env: dict[str, str], job: TrainingJob) -> dict[str, Any]:
    """What a team may change: it is merged over this."""
    variables = {
        "ML_PLATFORM_STORE": store,
        "ML_PLATFORM_HOME": f"{SCRATCH}/home",
        "OMP_NUM_THREADS": str(job.recipe.threads),
        "PYTHONUNBUFFERED": "1",
        # The root is read-only, and the user may have no entry in the image: torch asks for its name.
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "USER": "train",
        **env,
    }
    return {
        "container_config": {
            **({"image": settings.image} if settings.image else {}),
            "env": [{"name": key, "value": value} for key, value in variables.items()],
            "security_context": {
                "allow_privilege_escalation": False,
                "read_only_root_filesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volume_mounts": [{"name": "scratch", "mount_path": SCRATCH}],
        },
        "pod_spec_config": {
            "security_context": {
                "run_as_non_root": True,
                "run_as_user": 1000,
                "seccomp_profile": {"type": "RuntimeDefault"},
            },
            "automount_service_account_token": False,
            # Python must not be process 1, which a SIGTERM does nothing to until there is a handler: a pod that is
            # asked to end in its first second would live until it is killed.
            "share_process_namespace": True,
            "enable_service_links": False,
            "termination_grace_period_seconds": settings.grace_seconds,
            "volumes": [{"name": "scratch", "empty_dir": {}}],
            **({"scheduler_name": settings.scheduler} if settings.scheduler else {}),
        },
        "job_spec_config": {
            "active_deadline_seconds": settings.deadline_seconds,
            "ttl_seconds_after_finished": settings.ttl_seconds,
        },
    }


def _fixed_container(name: str, job: TrainingJob, folder: str, settings: KubernetesSettings) -> dict[str, Any]:
    """What the job stands on."""
    host, pods = object_name(name), pods_of(job, settings)
    return {
        "name": CONTAINER,
        "command": [settings.python, "-m", "ml_platform.launch.kubernetes.pod"],
        "args": [
            folder,
            *("--index=$(JOB_COMPLETION_INDEX)", f"--pods={pods}", f"--ranks={settings.processes_per_pod}"),
            *(
                "--uid=$(JOB_UID)",
                f"--endpoint={host}-0.{host}:{PORT}",
                f"--address={host}-$(JOB_COMPLETION_INDEX).{host}",
            ),
            *(f"--patience={settings.deadline_seconds}", "--last-words=/dev/termination-log"),
        ],
        "termination_message_path": "/dev/termination-log",
        "termination_message_policy": "FallbackToLogsOnError",
    }


def _fixed_spec(job: TrainingJob, settings: KubernetesSettings) -> dict[str, Any]:
    pods = pods_of(job, settings)
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    passing = {"container_name": CONTAINER, "values": list(codes.PASSING)}
    fatal = {"container_name": CONTAINER, "values": sorted([0, *codes.PASSING])}
    return {
        "completion_mode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        # Only what comes from outside is counted, and one lost pod costs all: so many times may all be made again.
        "backoff_limit": job.recipe.restarts * pods,
        "pod_replacement_policy": "Failed",
        "pod_failure_policy": {
            "rules": [
                {"action": "Count", "on_pod_conditions": disrupted},
                {"action": "Count", "on_exit_codes": {**passing, "operator": "In"}},
                {"action": "FailJob", "on_exit_codes": {**fatal, "operator": "NotIn"}},
            ]
        },
        **({"suspend": True} if settings.queue else {}),
    }


def _labelled(metadata: Any) -> dict[str, Any]:
    return {**metadata, "labels": {**metadata.get("labels", {}), **MANAGED}}
