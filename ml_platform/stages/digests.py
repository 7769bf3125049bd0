"""Which bytes a landed file holds, remembered: a file whose size and version have not changed is not read again."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ml_platform.errors import LandingError

if TYPE_CHECKING:
    from ml_platform.landing import LandedFile, Landing


class Digests:
    """SHA-256 of landed files, kept in a small SQLite file that may be deleted at any time."""

    def __init__(self, landing: Landing, cache: Path) -> None:
        self._landing, self._path = landing, cache / "landing_digests.sqlite"

    def of(self, files: Iterable[LandedFile]) -> dict[str, str | LandingError]:
        """Digest by URL; a `LandingError` for a file that cannot be taken (growing, vanished, empty)."""
        files = list(files)
        with contextlib.closing(self._open()) as db, db:
            rows = db.execute("SELECT url, version, sha256 FROM digest")
            known = {(url, version): digest for url, version, digest in rows}
            result: dict[str, str | LandingError] = {}
            with TemporaryDirectory() as folder:
                for number, file in enumerate(files):
                    key = f"{file.version}:{file.size}"
                    digest = known.get((file.url, key))
                    if digest is None:
                        try:
                            digest = self._read(file, Path(folder) / str(number))
                        except LandingError as error:
                            result[file.url] = error
                            continue
                        db.execute("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", (file.url, key, digest))
                    result[file.url] = digest
        return result

    def _read(self, file: LandedFile, to: Path) -> str:
        digest = self._landing.snapshot(file, to)
        to.unlink()
        return digest

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=60)
        db.execute("CREATE TABLE IF NOT EXISTS digest (url TEXT PRIMARY KEY, version TEXT, sha256 TEXT)")
        return db
