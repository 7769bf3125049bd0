"""The wheel carries everything that an installed platform reads: templates, sample data, Dagster's files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ml_platform.settings import child_environment

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import ml_platform
from ml_platform.cli.main import main
from ml_platform.cli.new import checkout
from ml_platform.instance import CONFIG_FILES, release_text
assert ml_platform.__file__.startswith({folder!r}), ml_platform.__file__
assert checkout() is None
assert all(release_text(name) for name in CONFIG_FILES)
main({words!r})
"""


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="what builds the project is not installed")
def test_a_wheel_is_complete(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    unpacked = tmp_path / "site"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    assert (unpacked / "ml_platform/py.typed").is_file()
    assert not list(unpacked.glob("ml_platform_tests"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        program = PROGRAM.format(folder=str(unpacked), words=list(words))
        environment = child_environment(PYTHONPATH=str(unpacked), ML_PLATFORM_HOME=str(tmp_path / "home"))
        return subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    landed = run("land", "nyc_flights")
    assert landed.returncode == 0, landed.stderr
    assert "363 files landed" in landed.stdout
    assert run("new", "churn", "--into", str(tmp_path / "into")).returncode == 0
    # Outside a checkout there is no place of its own for a new pipeline.
    refused = run("new", "churn")
    assert refused.returncode == 2
    assert "--into" in refused.stderr
