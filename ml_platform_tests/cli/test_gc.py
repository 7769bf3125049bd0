"""`gc` on the command line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ml_platform.store import Store
from ml_platform_tests.cli.conftest import Command
from ml_platform_tests.store.conftest import draft


@pytest.fixture
def store(home: Path) -> Store:
    """A store with one artifact that nothing needs, forty days old."""
    store = Store(home / "store", cache=home / "cache")
    with store.scratch() as scratch:
        (scratch / "x").write_bytes(b"12345")
        store.commit(draft(), {"x": scratch / "x"})
    then = time.time() - 40 * 86_400
    for path in (home / "store").rglob("*"):
        os.utime(path, (then, then))
    return store


def test_it_says_what_goes_and_removes_it(command: Command, store: Store) -> None:
    answer = command("gc", "--dry-run")
    assert answer.code == 0
    for word in ("flights/features", "bytes", "Would free"):
        assert word in answer.out
    assert store.artifacts("flights", "features") != []
    assert command("gc", "--keep", "50d", "--json").code == 0
    told = json.loads(command("gc", "--json").out)
    assert {(found["kind"], found["count"]) for found in told["garbage"]} == {("artifacts", 1), ("bytes", 1)}
    assert [found["bytes"] for found in told["garbage"] if found["kind"] == "bytes"] == [5]
    assert store.artifacts("flights", "features") == []
    assert "no garbage" in command("gc").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--keep", "soon"), "30d"),
        (("--keep", "2h"), "at least 1d"),
        (("--cache", "5"), "500M"),
        (("no_such_pipeline",), "no_such_pipeline"),
    ],
)
def test_what_was_asked_wrongly_is_said_and_nothing_goes(
    command: Command, store: Store, words: tuple[str, ...], says: str
) -> None:
    answer = command("gc", *words)
    assert answer.code == 2
    assert says in answer.err
    assert len(store.artifacts("flights", "features")) == 1


def test_a_registry_that_is_away_means_no(command: Command, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_MLFLOW", "http://127.0.0.1:9")
    answer = command("gc")
    assert answer.code == 1
    assert "ML_PLATFORM_MLFLOW" in answer.err
    assert len(store.artifacts("flights", "features")) == 1


def test_of_a_store_that_others_may_use_it_says_so(
    command: Command, store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "store").rename(tmp_path / "shared")
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path / "shared"))
    answer = command("gc", "--dry-run")
    assert "what others have published" in answer.err
    assert "flights/features" in answer.out
    assert "what others have published" in json.loads(command("gc", "--dry-run", "--json").out)["remarks"][0]
