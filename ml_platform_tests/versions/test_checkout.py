"""Which commit code is of: what git says of the very folder that it runs from, and nothing where there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ml_platform.versions.checkout import NONE, Checkout, _look, checkout_of


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def looked(folder: Path) -> Checkout:
    _look.cache_clear()
    return _look(folder / "code.py")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "a repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("A = 1\n")
    return folder


def test_a_commit_and_whether_anything_is_in_none(repository: Path) -> None:
    assert looked(repository) == NONE, "there is no commit yet"
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "begin")
    commit = git(repository, "rev-parse", "HEAD")
    assert looked(repository) == Checkout(commit, dirty=False)
    git(repository, "checkout", "-q", "--detach")
    assert looked(repository) == Checkout(commit, dirty=False)
    (repository / "more.py").write_text("")
    assert looked(repository) == Checkout(commit, dirty=True)
    (repository / "more.py").unlink()
    (repository / "code.py").write_text("A = 2\n")
    assert looked(repository) == Checkout(commit, dirty=True)


def test_code_that_a_repository_ignores_is_in_no_commit(repository: Path) -> None:
    (repository / ".gitignore").write_text("code.py\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "begin")
    assert looked(repository).dirty


def test_nothing_is_said_where_there_is_no_repository_no_git_or_the_code_is_installed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "begin")
    installed = repository / "venv" / "site-packages"
    installed.mkdir(parents=True)
    assert looked(installed) == NONE
    assert looked(tmp_path) == NONE
    monkeypatch.setenv("PATH", str(tmp_path))
    assert looked(repository) == NONE
    assert checkout_of("no.such.module") == NONE


def test_a_submodule_has_a_commit_of_its_own(repository: Path, tmp_path: Path) -> None:
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "begin")
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "inner")
    git(outer, "commit", "-qm", "outer")
    assert looked(outer / "inner").commit == git(repository, "rev-parse", "HEAD") != git(outer, "rev-parse", "HEAD")
    assert not looked(outer / "inner").dirty
