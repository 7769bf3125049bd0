"""`ml-platform doctor`: each failure is seen, and comes with what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ml_platform.cli import checks
from ml_platform.java import find_java
from ml_platform.settings import Settings
from ml_platform_tests.cli.conftest import Command


def script(folder: Path, text: str) -> Path:
    """An executable named java in `folder`/bin."""
    path = folder / "bin/java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_machine_without_java_is_told_what_to_install(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    answer = command("doctor")
    assert answer.code == 1
    assert "no java on the PATH" in answer.out
    for line in ("apt-get install -y openjdk-17-jre-headless", "dnf install", "brew install openjdk@17"):
        assert line in answer.out
    assert answer.out.count("problem") == 1, answer.out


def test_java_home_goes_before_the_path(tmp_path: Path) -> None:
    path = script(tmp_path, "echo 'openjdk version \"21.0.3\" 2024-04-16' >&2")
    java = find_java(str(tmp_path))
    assert (java.path, java.problem) == (str(path), "")
    assert "21" in java.version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "it is Java 11"),
        ("echo 'java version \"1.8.0_292\"' >&2", "it is Java 8"),
        ("echo 'Unable to locate a Java Runtime.' >&2; exit 1", "Unable to locate"),
        ("exit 0", "no output"),
    ],
)
def test_a_java_that_will_not_do_is_said(tmp_path: Path, text: str, said: str) -> None:
    script(tmp_path, text)
    assert said in find_java(str(tmp_path)).problem


def test_a_java_home_without_java_is_said(tmp_path: Path) -> None:
    assert str(tmp_path) in find_java(str(tmp_path)).problem


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(home=tmp_path / "file" / "home")
    for check in (checks.check_home, checks.check_dagster, checks.check_store):
        finding = checks.checked(check, settings)
        assert not finding.ok
        assert finding.fix


def test_a_store_that_does_not_answer(settings: Settings) -> None:
    options = {"s3": {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"}}
    finding = checks.checked(
        checks.check_store, settings.model_copy(update={"store": "s3://b/x", "storage_options": options})
    )
    assert not finding.ok
    assert "s3://b/x" in finding.found
    assert finding.fix


def test_a_store_of_an_unknown_kind(settings: Settings) -> None:
    finding = checks.checked(checks.check_store, settings.model_copy(update={"store": "nothing://b/x"}))
    assert not finding.ok
    assert finding.fix


def test_a_store_that_is_well_is_left_empty(settings: Settings) -> None:
    assert checks.checked(checks.check_store, settings).ok
    assert not list(Path(settings.store).iterdir())


def test_a_gpu_that_is_asked_for_and_not_there(settings: Settings) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    finding = checks.checked(checks.check_torch, settings.model_copy(update={"device": "cuda"}))
    assert not finding.ok
    assert "ML_PLATFORM_DEVICE" in finding.fix


def test_a_check_that_hangs_or_breaks_is_a_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LIMIT_SECONDS", 0.05)

    def hangs(_settings: Settings) -> checks.Finding:
        time.sleep(5)
        return checks.Finding(ok=True, found="late")

    def breaks(_settings: Settings) -> checks.Finding:
        raise RuntimeError("broken installation")

    assert not checks.checked(hangs, settings).ok
    monkeypatch.undo()
    finding = checks.checked(breaks, settings)
    assert not finding.ok
    assert "broken installation" in finding.found
    assert finding.fix
