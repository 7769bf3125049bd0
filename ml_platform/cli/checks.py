"""What `doctor` looks at. A check takes the settings and returns what it found; what it raises is a problem too."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_platform.errors import PlatformError
from ml_platform.settings import Settings

LEAST_DISK_GIB = 2.0
LEAST_MEMORY_GIB = 4.0
LIMIT_SECONDS = 90.0
"""How long one check may take. An endpoint that does not answer is a problem, not a reason to wait for ever."""

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found, and how to mend it where it is not well."""

    ok: bool
    found: str
    fix: str = ""


Check = Callable[[Settings], Finding]


def checked(check: Check, settings: Settings) -> Finding:
    """Run a check, within its time; an exception becomes a finding."""
    findings: list[Finding] = []

    def work() -> None:
        try:
            findings.append(check(settings))
        except PlatformError as error:
            got = f": {error.got}" if error.got is not None else ""
            findings.append(
                Finding(ok=False, found=f"{error.what.removesuffix('.')}{got}", fix=error.fix or str(error))
            )
        except Exception as error:
            findings.append(Finding(ok=False, found=f"{type(error).__name__}: {error}"[:400], fix=_general(check)))

    # A thread that hangs in a socket must not keep the process from ending: hence daemon, and no executor.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT_SECONDS)
    if not findings:
        return Finding(ok=False, found=f"no answer in {LIMIT_SECONDS:.0f} s", fix=_general(check))
    return findings[0]


def _general(check: Check) -> str:
    """What to do about a failure that the check itself did not foresee."""
    return FIXES.get(check.__name__, "reinstall what requirements.lock names: make clean, then make run")


def check_python(_settings: Settings) -> Finding:
    """The interpreter's version."""
    found = f"{platform.python_version()} at {sys.executable}"
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding(ok=ok, found=found, fix="use Python 3.11, 3.12 or 3.13: make clean, then make run PYTHON=python3.12")


def check_java(settings: Settings) -> Finding:
    """Java, for Spark."""
    from ml_platform.java import FIX, find_java

    java = find_java(settings.java_home)
    found = java.problem or java.version
    return Finding(ok=not java.problem, found=f"{found} at {java.path}" if java.path else found, fix=FIX)


def check_memory(_settings: Settings) -> Finding:
    """Memory of the machine, or of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return Finding(
        ok=total >= LEAST_MEMORY_GIB * _GIB * 0.95,
        found=f"{total / _GIB:.1f} GiB",
        fix=f"give it {LEAST_MEMORY_GIB:.0f} GiB; less Spark memory (ML_PLATFORM_SPARK_MEMORY=512m) may help",
    )


def check_home(settings: Settings) -> Finding:
    """The home can be written."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        probe = settings.home / f".probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        return Finding(ok=False, found=str(error), fix="set ML_PLATFORM_HOME to a folder that you can write to")
    return Finding(ok=True, found=f"{settings.home} can be written")


def check_disk(settings: Settings) -> Finding:
    """Free space under the home."""
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return Finding(
        ok=free >= LEAST_DISK_GIB * _GIB,
        found=f"{free / _GIB:.1f} GiB free at {place}",
        fix=f"free {LEAST_DISK_GIB:.0f} GiB there, or set ML_PLATFORM_HOME to a folder on another disk",
    )


_TORCH = """
import json, torch, torch.distributed as d
print(json.dumps({"version": torch.__version__, "gpus": [torch.cuda.get_device_name(i) for i in
range(torch.cuda.device_count())], "nccl": d.is_nccl_available(), "gloo": d.is_gloo_available()}))
"""


def check_torch(settings: Settings) -> Finding:
    """Torch and its devices, in a process of its own: a broken driver can take the whole process with it."""
    answer = subprocess.run([sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if answer.returncode:
        last = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
        return Finding(ok=False, found=f"it does not import: {last}", fix=FIXES["check_torch"])
    torch = json.loads(answer.stdout.splitlines()[-1])
    gpus = torch["gpus"]
    found = f"{torch['version']}, " + (f"{len(gpus)} x {gpus[0]}" if gpus else "no GPU")
    found += f", nccl {'yes' if torch['nccl'] else 'no'}, gloo {'yes' if torch['gloo'] else 'no'}"
    if not torch["gloo"] and not (gpus and torch["nccl"]):
        return Finding(ok=False, found=found, fix="install a torch build with gloo, as requirements.lock names it")
    if gpus and not torch["nccl"] and settings.device != "cpu":
        return Finding(ok=False, found=found, fix="install a torch build with NCCL, or set ML_PLATFORM_DEVICE=cpu")
    if not gpus and settings.device == "cuda":
        fix = "`nvidia-smi` must show a GPU, and torch must be a CUDA build; or set ML_PLATFORM_DEVICE=auto"
        return Finding(ok=False, found=f"{found}, and ML_PLATFORM_DEVICE is cuda", fix=fix)
    if not gpus and shutil.which("nvidia-smi"):
        found += " that this torch build can use; training runs on the CPU"
    return Finding(ok=True, found=found)


def check_spark(_settings: Settings) -> Finding:
    """PySpark imports. Starting it would take ten seconds and say no more than Java's check does."""
    import pyspark

    return Finding(ok=True, found=f"PySpark {pyspark.__version__}")


def check_store(settings: Settings) -> Finding:
    """The store can be written, read and cleared."""
    return _probe(settings.store, settings, "ML_PLATFORM_STORE")


def check_landing(settings: Settings) -> Finding:
    """The landing place can be written, read and cleared."""
    return _probe(settings.landing, settings, "ML_PLATFORM_LANDING")


def _probe(url: str, settings: Settings, variable: str) -> Finding:
    from ml_platform.store.filesystem import local_folder, open_filesystem

    fix = f"{variable} must name a folder or URL that can be written; credentials and endpoint go into "
    fix += 'ML_PLATFORM_STORAGE_OPTIONS (JSON), and S3 needs the extra: pip install "ml-platform[s3]"'
    try:
        folder = local_folder(url)
        files, root = open_filesystem(f"file://{folder}" if folder else url, settings.storage_options)
        files.makedirs(root, exist_ok=True)
        probe = f"{root.rstrip('/')}/.probe-{uuid.uuid4().hex}"
        files.pipe_file(probe, b"probe")
        read = files.cat_file(probe)
        files.rm_file(probe)
    except PlatformError as error:
        return Finding(ok=False, found=f"{url}: {error.what} {error.got or ''}"[:400], fix=error.fix or fix)
    except Exception as error:
        return Finding(ok=False, found=f"{url}: {type(error).__name__}: {error}"[:400], fix=fix)
    return Finding(ok=read == b"probe", found=f"{url} can be written and read", fix=fix)


def check_mlflow(settings: Settings) -> Finding:
    """MLflow's tracking store and registry answer."""
    if settings.mlflow.startswith("sqlite:///"):
        Path(settings.mlflow.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    import logging

    import mlflow
    from mlflow import MlflowClient

    # The first look at a new SQLite file logs every migration.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    client = MlflowClient(tracking_uri=settings.mlflow, registry_uri=settings.mlflow)
    client.search_experiments(max_results=1)
    models = len(client.search_registered_models(max_results=100))
    return Finding(ok=True, found=f"MLflow {mlflow.__version__} at {settings.mlflow}, {models} registered models")


def check_dagster(settings: Settings) -> Finding:
    """Dagster's instance opens."""
    import dagster

    from ml_platform.instance import prepare_instance

    with prepare_instance(settings) as instance:
        runs = instance.get_runs_count()
    return Finding(ok=True, found=f"Dagster {dagster.__version__} at {settings.dagster_home}, {runs} runs")


def check_pipelines(settings: Settings) -> Finding:
    """Every declared pipeline loads."""
    from ml_platform.discovery import pipelines

    names = list(pipelines(settings))
    return Finding(ok=True, found=", ".join(names) or "none declared; `ml-platform new NAME` writes one")


CHECKS: Mapping[str, Check] = {
    "Python": check_python,
    "Java": check_java,
    "Memory": check_memory,
    "Home": check_home,
    "Disk": check_disk,
    "torch": check_torch,
    "Spark": check_spark,
    "Store": check_store,
    "Landing": check_landing,
    "MLflow": check_mlflow,
    "Dagster": check_dagster,
    "Pipelines": check_pipelines,
}
"""In the order in which they are looked at and shown."""

FIXES: Mapping[str, str] = {
    "check_torch": "reinstall it: pip install --force-reinstall torch at the version in requirements.lock",
    "check_mlflow": "ML_PLATFORM_MLFLOW must be a tracking URI that answers; unset, it is a SQLite file in the home",
    "check_dagster": "its folder is HOME/dagster; a damaged one can be moved away, and begins anew without the history",
    "check_pipelines": "correct the module that the message names",
}
