"""A revision of a git repository, laid out as files for a while."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_platform.errors import SetupError
from ml_platform.settings import child_environment


@dataclass(frozen=True)
class Revision:
    """One commit: as it was asked for, its hash, its repository, and the folder where its files lie."""

    name: str
    commit: str
    repository: Path
    folder: Path

    def __str__(self) -> str:
        return self.name if self.commit.startswith(self.name) else f"{self.name} ({self.commit[:7]})"


def repository_of(folder: Path, revision: str) -> Path | None:
    """The git repository around a folder, where it has that revision; None where it has not, or what is there is
    installed."""
    if is_installed(str(folder)) or shutil.which("git") is None:
        return None
    try:
        repository = _repository(folder)
        _commit(repository, revision)
    except subprocess.CalledProcessError:
        return None
    return repository


@contextmanager
def laid_out(revision: str, around: Path | None = None) -> Iterator[Revision]:
    """Write a revision's files into a temporary folder. The repository, its index and work tree are left alone.

    Args:
        revision: a branch, a tag or a commit.
        around: a folder in the repository; the working folder when left out.

    Raises:
        SetupError: there is no git, no repository around the folder, or no such revision in it.
    """
    around = around or Path.cwd()
    if shutil.which("git") is None:
        raise SetupError("git is not installed.", fix="install it; a revision is read with it")
    try:
        repository = _repository(around)
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "The folder is in no git repository.",
            where=around,
            got=error.stderr.strip(),
            fix="go to the project's checkout",
        ) from error
    try:
        commit = _commit(repository, revision)
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "There is no such revision.",
            where=repository,
            got=f"{revision}: {error.stderr.strip()}",
            fix="a branch, a tag or a commit, such as main or HEAD~1; in CI, fetch it first: a checkout may be shallow",
        ) from error
    with tempfile.TemporaryDirectory(prefix="ml-platform-revision-") as temporary:
        # Not `git worktree`, which writes into the repository, nor `git archive`, which may leave files out.
        index, folder = Path(temporary, "index"), Path(temporary, "files")
        _git(repository, "read-tree", commit, index=index)
        _git(repository, "checkout-index", "--all", f"--prefix={folder}/", index=index)
        folder.mkdir(exist_ok=True)
        yield Revision(revision, commit, repository, folder)


def _repository(folder: Path) -> Path:
    return Path(_git(folder, "rev-parse", "--show-toplevel"))


def _commit(repository: Path, revision: str) -> str:
    if revision.startswith("-"):
        raise subprocess.CalledProcessError(1, "git", stderr="a revision does not begin with a dash")
    return _git(repository, "rev-parse", "--verify", f"{revision}^{{commit}}")


def _git(folder: Path, *words: str, index: Path | None = None) -> str:
    environment = child_environment(LC_ALL="C", **({"GIT_INDEX_FILE": str(index)} if index else {}))
    done = subprocess.run(
        ["git", "-C", str(folder), *words], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def path_in(revisions: Sequence[Revision], path: list[str]) -> list[str]:
    """Python's search path with the revisions' files in place of their repositories'. Installed packages stay.

    Raises:
        SetupError: nothing of a repository is on the path, so that this process runs other code.
    """
    roots = {os.path.realpath(revision.repository): revision for revision in revisions}
    found: list[str] = []
    mapped: set[str] = set()
    for entry in path:
        real = os.path.realpath(entry or os.curdir)
        # Of repositories inside one another the innermost counts.
        root = max((root for root in roots if Path(real).is_relative_to(root)), key=len, default="")
        if root and not is_installed(real):
            found.append(os.path.join(roots[root].folder, os.path.relpath(real, root)))
            mapped.add(root)
        else:
            found.append(entry)
    if missing := roots.keys() - mapped:
        raise SetupError(
            "No folder of the repository is on Python's path, so this is not the code that runs.",
            where=", ".join(missing),
            got=os.pathsep.join(path),
            fix="install the project with `pip install -e .`, or name it in PYTHONPATH",
        )
    return found


def is_installed(path: str) -> bool:
    """Whether a path is inside a folder of installed packages, which a repository may hold and has no revision of."""
    return not {"site-packages", "dist-packages"}.isdisjoint(path.split(os.sep))
