"""Where checkpoints lie, when one counts, and whether it is whole. Beside a job's output, `.NAME.checkpoints/`:

    .draft-STEP/       being written: each rank adds its files
    STEP-HASH/         a checkpoint: renamed when every file of every rank is flushed; HASH is the manifest's
        .metadata      of torch.distributed.checkpoint: which tensor lies where
        __RANK_0.distcp
        manifest.json  whose it is, where training was, and the SHA-256 of every file

Where ranks share no disk, each machine has such a folder with the files of its own ranks, and rank 0's the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_platform.files import flush, sha256

KEPT = 2
"""How many are kept: a damaged one gives way to the one before."""
MANIFEST = "manifest.json"
_NAME = re.compile(r"(\d+)-([0-9a-f]{32})")


def place_of(output: Path) -> Path:
    """The folder of the checkpoints of a job with that output."""
    return output.with_name(f".{output.name}.checkpoints")


def listed(place: Path) -> list[str]:
    """The names of what was committed, newest first."""
    names = [path.name for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
    return sorted((name for name in names if _NAME.fullmatch(name)), key=lambda name: -int(name.partition("-")[0]))


def draft_of(place: Path, done: int) -> Path:
    """Where the checkpoint after `done` steps is written."""
    return place / f".draft-{done}"


def digests(draft: Path, files: list[str]) -> dict[str, str]:
    """The SHA-256 of files, which are flushed. Those that are empty are removed instead: nothing points to them."""
    found = {}
    for name in files:
        if (draft / name).stat().st_size:
            found[name] = sha256(draft / name)
        else:
            (draft / name).unlink()
    return found


def commit(draft: Path, manifest: Mapping[str, Any], *, first: bool) -> None:
    """Make a draft a checkpoint. All its files are there and flushed, on this machine and on the others.

    Args:
        draft: made by `draft_of`.
        manifest: the same on every machine; its `done` and `files` name the checkpoint.
        first: whether this is rank 0's machine, which keeps the manifest.
    """
    text = json.dumps(manifest, sort_keys=True).encode()
    if first:
        with (draft / MANIFEST).open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    elif not any(draft.iterdir()):
        draft.rmdir()  # the ranks here had nothing to write
        return
    flush(draft)
    draft.rename(draft.with_name(f"{manifest['done']}-{hashlib.sha256(text).hexdigest()[:32]}"))
    flush(draft.parent)


def read(place: Path, name: str) -> dict[str, Any] | None:
    """The manifest of a checkpoint that is whole, every file as it was written; None of one that is not."""
    match = _NAME.fullmatch(name)
    try:
        text = (place / name / MANIFEST).read_bytes()
        if match is None or hashlib.sha256(text).hexdigest()[:32] != match[2]:
            return None
        found: dict[str, Any] = json.loads(text)
        whole = all(sha256(place / name / file) == hashed for file, hashed in found["files"].items())
    except OSError:
        return None
    return found if whole else None


def manifest(place: Path, name: str) -> dict[str, Any]:
    """The manifest of a checkpoint that is known to be whole."""
    found: dict[str, Any] = json.loads((place / name / MANIFEST).read_bytes())
    return found


def remove(place: Path, name: str) -> None:
    """Remove one. It is gone at once, whatever happens meanwhile."""
    gone = place / f".gone-{name}"
    try:
        (place / name).rename(gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def tidy(place: Path) -> None:
    """Remove what an earlier attempt was writing or removing when it was killed."""
    for path in place.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)
