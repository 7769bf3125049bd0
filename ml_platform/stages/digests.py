"""Which bytes a landed file holds, remembered: a file whose size and version have not changed is not read again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ml_platform.errors import LandingError
from ml_platform.store.memory import Memory

if TYPE_CHECKING:
    from ml_platform.landing import LandedFile, Landing

KEPT_EVERY_SECONDS = 2.0
"""What was read for longer than that is kept, even if the process is killed before the last file."""
_TABLES = "CREATE TABLE IF NOT EXISTS digest (url TEXT PRIMARY KEY, version TEXT, sha256 TEXT);"


class Digests:
    """SHA-256 of landed files, kept in a small SQLite file that may be deleted at any time."""

    def __init__(self, landing: Landing, cache: Path) -> None:
        self._landing = landing
        self._memory = Memory(cache / "landing_digests.sqlite", _TABLES, without="landed files are read again")

    def of(self, files: Iterable[LandedFile]) -> dict[str, str | LandingError]:
        """Digest by URL; a `LandingError` for a file that cannot be taken (growing, vanished, empty)."""
        files = list(files)
        result: dict[str, str | LandingError] = {**self.known(files)}
        read: list[tuple[str, str, str]] = []
        kept = time.monotonic()
        with TemporaryDirectory() as folder:
            for number, file in enumerate(file for file in files if file.url not in result):
                try:
                    digest = result[file.url] = self._read(file, Path(folder) / str(number))
                except LandingError as error:
                    result[file.url] = error
                    continue
                read.append((file.url, _key(file), digest))
                if time.monotonic() - kept > KEPT_EVERY_SECONDS:
                    self._remember(read)
                    read, kept = [], time.monotonic()
        self._remember(read)
        return result

    def known(self, files: Iterable[LandedFile]) -> dict[str, str]:
        """Digest by URL of the files that were read before. Reads none."""
        rows = self._memory.use(lambda db: db.execute("SELECT url, version, sha256 FROM digest").fetchall()) or []
        known = {(url, key): digest for url, key, digest in rows}
        return {file.url: known[key] for file in files if (key := (file.url, _key(file))) in known}

    def _remember(self, rows: Sequence[tuple[str, str, str]]) -> None:
        if rows:
            self._memory.use(lambda db: db.executemany("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", rows))

    def _read(self, file: LandedFile, to: Path) -> str:
        digest = self._landing.snapshot(file, to)
        to.unlink()
        return digest


def _key(file: LandedFile) -> str:
    return f"{file.version}:{file.size}"
