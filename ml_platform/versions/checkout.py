"""Which commit the running code is of, and whether its work tree had changes that are in no commit.

Told of every artifact and never part of its name: a code version says what the code does, a commit where to find it.
"""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ml_platform.naming import module_path
from ml_platform.settings import child_environment
from ml_platform.versions.revision import is_installed

SECONDS = 20.0
"""How long git may take: on a work tree of a network disk it is slow, and no build should wait for it."""


@dataclass(frozen=True)
class Checkout:
    """Where code came from.

    Args:
        commit: its hash; "" where there is no git, no repository, no commit yet, or the code is installed.
        dirty: whether tracked files were changed, others are new, or the code itself is not in the commit.
    """

    commit: str = ""
    dirty: bool = False


NONE = Checkout()


def checkout_of(module: str) -> Checkout:
    """The checkout that a module is in. Looked up once a process: what is edited later did not run in it."""
    path = module_path(module)
    return NONE if path is None else _look(path.resolve())


@functools.cache
def _look(file: Path) -> Checkout:
    if is_installed(str(file)):
        return NONE
    status = _git(file.parent, "status", "--porcelain=v2", "--branch", "--untracked-files=normal")
    lines = status.splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "")
    if not commit or commit.startswith("("):  # "(initial)": a repository without a commit
        return NONE
    changed = any(not line.startswith("#") for line in lines)
    return Checkout(commit, changed or not _git(file.parent, "ls-files", "--", file.name).strip())


def _git(folder: Path, *words: str) -> str:
    """What git says; nothing where there is none, it refuses, or takes too long."""
    # Without optional locks it does not write the index of a work tree in which a person may be committing.
    environment = child_environment(LC_ALL="C", GIT_OPTIONAL_LOCKS="0")
    command = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
