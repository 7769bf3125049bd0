"""A cluster whose API server is away for a minute while a job trains: the job goes on, and so does who follows it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from ml_platform import launch
from ml_platform.launch.local import LocalLauncher
from ml_platform_tests.launch.backends import played
from ml_platform_tests.launch.conftest import paths
from ml_platform_tests.launch.test_launcher import same_bytes, trouble

__all__ = ["paths"]

AWAY = 60.0
"""Seconds."""


@pytest.mark.slow
@pytest.mark.parametrize("answer", [500, -35], ids=["500", "silence"])
def test_nothing_is_lost_and_nothing_trains_twice(paths: list[str], tmp_path: Path, answer: int) -> None:
    job = trouble(paths, "slow", epochs=20, checkpoint_seconds=1.0)
    lines: list[str] = []
    asked: list[float] = []

    def in_trouble(method: str, path: str) -> int | None:
        asked.append(time.monotonic())
        return answer if asked[-1] < began + AWAY else None

    with played(tmp_path, patience_seconds=300.0) as cluster:
        assert cluster.server is not None

        def look(line: str) -> None:
            nonlocal began
            lines.append(line)
            if line.startswith("epoch 3/20") and not began:
                began = time.monotonic()
                cluster.server.trouble = in_trouble  # type: ignore[union-attr]

        began = 0.0
        result = launch.run(cluster.launcher, name="away", job=job, log=look)
        assert cluster.server.requests.count(("POST", "/apis/batch/v1/namespaces/default/jobs")) == 1
        assert len(cluster.server.pods()) == 2, "nothing trained twice"
    assert len(asked) > 2
    assert asked[-1] - began > AWAY, "it was away until the end"
    epochs = [line.partition(":")[0] for line in lines if re.match(r"epoch \d+/", line)]
    assert list(dict.fromkeys(epochs)) == [f"epoch {number}/20" for number in range(1, 21)], "no line of it is lost"
    assert same_bytes(result, launch.run(LocalLauncher(tmp_path / "here"), name="here", job=job))
