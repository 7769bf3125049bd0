"""`ml-platform ui` answers, shows the pipelines, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.settings import child_environment
from ml_platform_tests.cli.conftest import Command

READY = "Ctrl-C stops everything."


def processes_of(home: Path) -> list[str]:
    """The commands of all processes that were started for this home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(home).encode() in text and state != "Z":
                found.append(text[:200].replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The UI of a fresh home: its process, and what it said until it was ready."""
    environment = child_environment(ML_PLATFORM_HOME=str(tmp_path / "home"))
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_platform.cli", "ui", "--port", "0"],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if READY in line:
            break
    # Its children write here too: they must never wait for a reader.
    threading.Thread(target=process.stderr.read, daemon=True).start()
    yield process, "".join(said)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_it_answers_and_leaves_no_process_behind(ui: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    process, said = ui
    assert READY in said, said
    assert "does not load" not in said, said
    found = re.search(r"Dagster\s+(http://\S+)", said)
    assert found is not None, said
    request = urllib.request.Request(
        f"{found[1]}/graphql",
        json.dumps({"query": "{ assetNodes { assetKey { path } } }"}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        keys = {"/".join(node["assetKey"]["path"]) for node in json.load(answer)["data"]["assetNodes"]}
    assert "nyc_flights/registered_model" in keys
    assert len(processes_of(tmp_path / "home")) > 3

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    deadline = time.monotonic() + 60
    while (left := processes_of(tmp_path / "home")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def test_a_port_that_is_taken_is_said_before_anything_starts(command: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = command("ui", "--port", str(taken.getsockname()[1]))
    assert answer.code == 2
    assert "--port" in answer.err
