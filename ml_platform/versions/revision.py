"""A revision of the git repository that this process stands in, laid out as files for a while."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
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


@contextmanager
def laid_out(revision: str) -> Iterator[Revision]:
    """Write a revision's files into a temporary folder. The repository, its index and work tree are left alone.

    Raises:
        SetupError: there is no git, no repository around the working folder, or no such revision in it.
    """
    if shutil.which("git") is None:
        raise SetupError("git is not installed.", fix="install it; a revision is read with it")
    try:
        repository = Path(_git(Path.cwd(), "rev-parse", "--show-toplevel"))
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "The working folder is in no git repository.",
            where=Path.cwd(),
            got=error.stderr.strip(),
            fix="go to the project's checkout",
        ) from error
    try:
        if revision.startswith("-"):
            raise subprocess.CalledProcessError(1, "git", stderr="a revision does not begin with a dash")
        commit = _git(repository, "rev-parse", "--verify", f"{revision}^{{commit}}")
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


def _git(folder: Path, *words: str, index: Path | None = None) -> str:
    environment = child_environment(LC_ALL="C", **({"GIT_INDEX_FILE": str(index)} if index else {}))
    done = subprocess.run(
        ["git", "-C", str(folder), *words], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def path_in(revision: Revision, path: list[str]) -> list[str]:
    """Python's search path with the revision's files in place of the repository's. Installed packages stay.

    Raises:
        SetupError: nothing of the repository is on the path, so that this process runs other code.
    """
    root = os.path.realpath(revision.repository)
    found: list[str] = []
    mapped = False
    for entry in path:
        real = os.path.realpath(entry or os.curdir)
        inside = real == root or real.startswith(root + os.sep)
        if inside and not {"site-packages", "dist-packages"} & set(real.split(os.sep)):
            found.append(os.path.join(revision.folder, os.path.relpath(real, root)))
            mapped = True
        else:
            found.append(entry)
    if not mapped:
        raise SetupError(
            "No folder of the repository is on Python's path, so this is not the code that runs.",
            where=revision.repository,
            got=os.pathsep.join(path),
            fix="install the project with `pip install -e .`, or name it in PYTHONPATH",
        )
    return found
