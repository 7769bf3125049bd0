"""Local copies of a remote store's files, verified before they are used."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Set
from pathlib import Path

from ml_platform.errors import DamagedArtifactError
from ml_platform.files import sha256
from ml_platform.store import layout
from ml_platform.store.backend import Backend
from ml_platform.store.filesystem import telling
from ml_platform.store.local import local_stamp
from ml_platform.store.manifest import ArtifactFile
from ml_platform.store.verified import Verified

IN_USE = 24 * 3600.0
"""Seconds: file systems note when a file was read only once a day."""


class Copies:
    """Copies in a folder that may be deleted at any time."""

    def __init__(self, folder: Path, backend: Backend, verified: Verified) -> None:
        self._folder, self._backend, self._verified = folder, backend, verified

    def path(self, file: ArtifactFile) -> Path:
        """The path of a file's copy, fetched unless it is there.

        Raises:
            DamagedArtifactError: the store has not the bytes that were committed.
        """
        path = layout.blob(file.sha256)
        target = self._folder / path
        if self._is_whole(target, file):
            return target
        temporary = self._folder / layout.TMP / layout.scratch_name()
        with telling("The cache cannot be written.", self._folder):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not self._backend.stamps([path]):
                raise damaged(file, self._backend.place(path), "is missing")
            self._backend.fetch(path, temporary)
            if (got := sha256(temporary)) != file.sha256:
                raise damaged(file, self._backend.place(path), f"hashes to {got}")
            with telling("The cache cannot be written.", self._folder):
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        self._verified.remember([(str(target), local_stamp(target).text, file.sha256)])
        return target

    def keep(self, sources: Mapping[str, Path], scratch: Path) -> None:
        """Move what was uploaded from scratch here, where it is sooner found than fetched. `sources` are by SHA-256."""
        kept = []
        with telling("The cache cannot be written.", self._folder):
            for sha256, source in sources.items():
                target = self._folder / layout.blob(sha256)
                if source.is_relative_to(scratch) and not source.is_symlink():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(source, target)
                    kept.append((str(target), local_stamp(target).text, sha256))
        self._verified.remember(kept)

    def trim(self, most: int, spare: Set[str], *, dry_run: bool) -> list[int]:
        """Remove copies until they take no more than `most` bytes, those first that were not used for longest.

        What was used within a day stays, and so does what somebody reads, whose SHA-256 is in `spare`. Returns the
        sizes of those removed.
        """
        found = []
        for path in (self._folder / layout.BLOBS).rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    stat = path.stat()
                    found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
        taken, removed = sum(size for _, size, _ in found), []
        for last_use, size, path in sorted(found):
            if taken > most and last_use < time.time() - IN_USE and path.name not in spare:
                if not dry_run:
                    path.unlink(missing_ok=True)
                removed.append(size)
                taken -= size
        return removed

    def _is_whole(self, copy: Path, file: ArtifactFile) -> bool:
        try:
            stamp = local_stamp(copy)
        except FileNotFoundError:
            return False
        if stamp.size != file.size:
            return False
        if self._verified.known({str(copy): stamp.text}).get(str(copy)) == file.sha256:
            return True
        if sha256(copy) != file.sha256:
            return False
        self._verified.remember([(str(copy), stamp.text, file.sha256)])
        return True


def damaged(file: ArtifactFile, where: str, what: str) -> DamagedArtifactError:
    """The error of a file that is not what was committed."""
    return DamagedArtifactError(
        f"The file {file.name} of an artifact {what}.",
        where=where,
        got=f"wanted {file.sha256}",
        fix="run the stage again",
    )
