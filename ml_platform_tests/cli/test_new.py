"""`ml-platform new`: what it writes runs, passes its own test and the linters, and nothing is ever overwritten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.cli.new import checkout
from ml_platform.settings import child_environment
from ml_platform_tests.cli.conftest import Command


def test_the_written_pipeline_passes_its_own_test(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "my pipelines"
    answer = command("new", "churn", "--into", root)
    assert answer.code == 0
    assert f"PYTHONPATH='{root}'" in answer.out
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(root / "tests/test_churn.py")],
        env=child_environment(PYTHONPATH=str(root)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_what_is_written_satisfies_the_linters(command: Command, tmp_path: Path) -> None:
    command("new", "churn", "--into", tmp_path / "into")
    root = checkout()
    assert root is not None
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", str(root / "pyproject.toml"), "into"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_an_existing_pipeline_is_never_touched(command: Command, tmp_path: Path) -> None:
    command("new", "churn", "--into", tmp_path)
    (tmp_path / "churn/pipeline.py").write_text("mine")
    (tmp_path / "tests/test_churn.py").unlink()
    answer = command("new", "churn", "--into", tmp_path)
    assert answer.code == 2
    assert str(tmp_path / "churn") in answer.err
    assert (tmp_path / "churn/pipeline.py").read_text() == "mine"
    assert not (tmp_path / "tests/test_churn.py").exists()


def test_an_existing_test_is_never_touched(command: Command, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_churn.py").write_text("mine")
    assert command("new", "churn", "--into", tmp_path).code == 2
    assert not (tmp_path / "churn").exists()


def test_a_pipeline_of_the_platform_is_refused(command: Command) -> None:
    answer = command("new", "nyc_flights")
    assert answer.code == 2
    assert "nyc_flights" in answer.err


@pytest.mark.parametrize("name", ["Churn", "1st", "a-b", "../up", "a b", "", "class", "é", "a" * 64])
def test_a_bad_name_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    assert command("new", name, "--into", tmp_path / "into").code == 2
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("name", ["random", "numpy", "ml_platform"])
def test_a_name_that_would_hide_a_module_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    answer = command("new", name, "--into", tmp_path / "into")
    assert answer.code == 2
    assert "module of that name" in answer.err
