"""Runs the command line in this process, on a fresh home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ml_platform.cli.main import main
from ml_platform.settings import settings as process_settings

TINY = "ml_platform_tests.tiny_pipeline"


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh home, which the command line is told of by the environment; the tiny pipeline is declared."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ML_PLATFORM_PIPELINES", TINY)
    monkeypatch.setenv("COLUMNS", "200")
    process_settings.cache_clear()
    yield tmp_path / "home"
    process_settings.cache_clear()


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("land", "tiny")` is `ml-platform land tiny`."""

    def run(*words: str | Path) -> Answer:
        process_settings.cache_clear()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(int(ended.value.code or 0), captured.out, captured.err)

    return run
