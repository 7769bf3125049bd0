"""The Makefile: works from a folder with a space in its name, asks before it downloads, repeats only what it must."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_platform.settings import child_environment

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("Makefile", "pyproject.toml", "requirements.lock", "ml_platform/java.py")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What make reads, in a folder whose name has spaces and a quote."""
    copy = tmp_path / "it's a folder"
    for part in PARTS:
        (copy / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, copy / part)
    return copy


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Of a make that runs these tests: its flags are not ours.
    clean = {"MAKEFLAGS": "", "MAKELEVEL": "", "MFLAGS": ""}
    return subprocess.run(
        [shutil.which("make") or "make", *words],
        cwd=folder,
        env=child_environment(**{**clean, **environment}),
        capture_output=True,
        text=True,
    )


def test_java_is_found_from_a_folder_with_a_space(folder: Path) -> None:
    done = make(folder, "java")
    assert done.returncode == 0, done.stderr
    assert "Java: version" in done.stdout


def test_without_java_nothing_is_downloaded_and_what_to_install_is_said(folder: Path) -> None:
    done = make(folder, "run", f"PYTHON={sys.executable}", PATH=str(folder), JAVA_HOME="")
    assert done.returncode != 0
    assert "openjdk-17-jre-headless" in done.stderr
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("python", ["/no/such/python", "false"])
def test_a_python_that_will_not_do_is_said(folder: Path, python: str) -> None:
    done = make(folder, "run", f"PYTHON={python}")
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13" in done.stderr
    assert python in done.stderr
    assert not (folder / ".venv").exists()


def test_set_up_is_repeated_only_when_what_it_depends_on_has_changed(folder: Path) -> None:
    assert make(folder, "-q", "setup").returncode == 1
    (folder / ".venv").mkdir()
    (folder / ".venv/.ready").touch()
    later = time.time() + 5
    os.utime(folder / ".venv/.ready", (later, later))
    assert make(folder, "-q", "setup").returncode == 0
    for part in ("requirements.lock", "pyproject.toml"):
        os.utime(folder / part, (later + 5, later + 5))
        assert make(folder, "-q", "setup").returncode == 1, part
        os.utime(folder / part, (later - 5, later - 5))


@pytest.mark.parametrize("target", ["run", "test", "test-all", "lint", "bench", "ui"])
def test_no_target_depends_on_an_active_environment_or_on_scripts(folder: Path, target: str) -> None:
    planned = make(folder, "-n", target, VIRTUAL_ENV="/somewhere/else")
    assert planned.returncode == 0, planned.stderr
    for line in planned.stdout.splitlines():
        assert str(folder) not in line, "an absolute path breaks in a folder with a space"
        for word in line.split():
            assert not word.startswith(".venv/bin/") or word == ".venv/bin/python", line


def test_what_ci_calls_is_a_valid_script() -> None:
    for name in ("run", "lock"):
        script = ROOT / ".ci" / name
        assert os.access(script, os.X_OK)
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
