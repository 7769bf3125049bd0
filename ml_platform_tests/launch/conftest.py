from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform_tests.training import made


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A real cluster is used only by who asks for it: `pytest -m cluster`, with KUBECONFIG."""
    asked = "cluster" in config.option.markexpr and "not cluster" not in config.option.markexpr
    if asked and "KUBECONFIG" in os.environ:
        return
    left = [item for item in items if item.get_closest_marker("cluster")]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Training files, small."""
    return made.files(tmp_path_factory.mktemp("data"))


def processes(mark: Path | str) -> list[str]:
    """Live processes whose command line has `mark` in it."""
    if not Path("/proc/self/cmdline").exists():
        listed = subprocess.run(["ps", "-axwwo", "stat=,args="], capture_output=True, text=True, check=True).stdout
        return [line for line in listed.splitlines() if str(mark) in line and not line.startswith("Z")]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile; a zombie's command line is empty
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(mark) in line]


def pids(*marks: Path | str) -> list[int]:
    """Ids of live processes whose command line has all of `marks` in it."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line for line in listed.splitlines() if all(str(mark) in line for mark in marks)]
    return [int(line.split()[0]) for line in lines]


def wait_until(condition: Callable[[], object], *, seconds: float = 300, what: str = "") -> None:
    """Wait for something that is bound to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or condition}"
        time.sleep(0.05)
