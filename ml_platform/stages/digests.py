"""Which bytes a landed file holds, remembered: a file whose size and version have not changed is not read again."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ml_platform.errors import LandingError

if TYPE_CHECKING:
    from ml_platform.landing import LandedFile, Landing

KEPT_EVERY_SECONDS = 2.0
"""What was read for longer than that is kept, even if the process is killed before the last file."""


class Digests:
    """SHA-256 of landed files, kept in a small SQLite file that may be deleted at any time."""

    def __init__(self, landing: Landing, cache: Path) -> None:
        self._landing, self._path = landing, cache / "landing_digests.sqlite"

    def of(self, files: Iterable[LandedFile]) -> dict[str, str | LandingError]:
        """Digest by URL; a `LandingError` for a file that cannot be taken (growing, vanished, empty)."""
        files = list(files)
        result: dict[str, str | LandingError] = {**self.known(files)}
        committed = time.monotonic()
        with contextlib.closing(self._open()) as db, db, TemporaryDirectory() as folder:
            for number, file in enumerate(file for file in files if file.url not in result):
                try:
                    digest = result[file.url] = self._read(file, Path(folder) / str(number))
                except LandingError as error:
                    result[file.url] = error
                    continue
                db.execute("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", (file.url, _key(file), digest))
                if time.monotonic() - committed > KEPT_EVERY_SECONDS:
                    db.commit()
                    committed = time.monotonic()
        return result

    def known(self, files: Iterable[LandedFile]) -> dict[str, str]:
        """Digest by URL of the files that were read before. Reads none."""
        with contextlib.closing(self._open()) as db:
            known = {(url, key): digest for url, key, digest in db.execute("SELECT url, version, sha256 FROM digest")}
        return {file.url: known[key] for file in files if (key := (file.url, _key(file))) in known}

    def _read(self, file: LandedFile, to: Path) -> str:
        digest = self._landing.snapshot(file, to)
        to.unlink()
        return digest

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=60)
        db.execute("CREATE TABLE IF NOT EXISTS digest (url TEXT PRIMARY KEY, version TEXT, sha256 TEXT)")
        return db


def _key(file: LandedFile) -> str:
    return f"{file.version}:{file.size}"
