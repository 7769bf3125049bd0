"""Runs the command line in this process, on a fresh home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from ml_platform.cli.main import main
from ml_platform.settings import settings as process_settings
from ml_platform_tests.tiny_pipeline.data import readings

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


Write = Callable[..., Path]


def as_made(frame: pl.DataFrame) -> pl.DataFrame:
    """A lot in which nothing is wrong."""
    return frame


@pytest.fixture
def lot(tmp_path: Path) -> Write:
    """`lot(number, change, name=..., folder=...)` writes a lot of readings as CSV, changed by a function."""

    def write(
        number: int,
        change: Callable[[pl.DataFrame], pl.DataFrame] = as_made,
        *,
        name: str = "",
        folder: str = "",
    ) -> Path:
        path = tmp_path / (folder or "data/readings") / f"{name or f'lot-{number:02d}'}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pl.from_arrow(readings(number))
        assert isinstance(frame, pl.DataFrame)
        change(frame).write_csv(path)
        return path

    return write


def night_shift(frame: pl.DataFrame) -> pl.DataFrame:
    """Two rows name a shift that there is not."""
    return frame.with_columns(shift=pl.when(pl.int_range(pl.len()).is_in([3, 40])).then(9).otherwise("shift"))


def idle(frame: pl.DataFrame) -> pl.DataFrame:
    """Every load is a hundredth: allowed by the schema, and never seen before."""
    return frame.with_columns(pl.col("load") / 100)
