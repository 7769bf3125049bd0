"""Real MLflow for these tests: SQLite files, and one tracking server over HTTP."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from ml_platform.registry.connection import Connection
from ml_platform.registry.tracking import MlflowResource
from ml_platform_tests.registry.trained import Trained, toy


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return toy(tmp_path_factory.getbasetemp() / "toy")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, to copy: its migrations take 3 s."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    Connection(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    """Of a database that holds nothing, in a folder with a space in its name."""
    home = tmp_path / "a home" / "mlflow"
    home.mkdir(parents=True)
    shutil.copyfile(empty_database, home / "mlflow.db")
    return f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture
def mlflow(uri: str) -> MlflowResource:
    return MlflowResource(tracking_uri=uri)


def context(run_id: str = "dagster-run-1") -> SimpleNamespace:
    """What tracking reads of an execution context."""
    return SimpleNamespace(log=logging.getLogger("stage"), run=SimpleNamespace(run_id=run_id))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: Sequence[str], url: str, log: Path, **environment: str) -> Iterator[str]:
    """A server in a process group of its own, until `url` answers; killed at the end, children and all."""
    quick = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    env = {**os.environ, **quick, **environment}
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not answers(url):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def server_command(folder: Path, port: int) -> list[str]:
    mlflow = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [*mlflow, "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]


@pytest.fixture(scope="session")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running `mlflow server`."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copyfile(empty_database, folder / "mlflow.db")
    url = f"http://127.0.0.1:{port}"
    with process(server_command(folder, port), f"{url}/health", folder / "log"):
        yield url
