"""What was verified, remembered: a file that has not changed since is not hashed again."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

_log = logging.getLogger(__name__)
_AT_ONCE = 500
_T = TypeVar("_T")


class Verified:
    """SHA-256 by place and stamp (size, time, inode, ETag: whatever changes with the bytes), in one SQLite file.

    Only a memory aid: it may be deleted at any time, and where it cannot be kept everything is hashed again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """The hash of each place that is remembered with exactly this stamp."""
        if not stamps:
            return {}
        places = list(stamps)

        def look_up(db: sqlite3.Connection) -> dict[str, str]:
            result: dict[str, str] = {}
            for start in range(0, len(places), _AT_ONCE):
                some = places[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT place, stamp, sha256 FROM verified WHERE place IN ({marks})"
                result.update(
                    (place, digest) for place, stamp, digest in db.execute(query, some) if stamps[place] == stamp
                )
            return result

        return self._with(look_up) or {}

    def remember(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Remember (place, stamp, sha256)."""
        rows = list(rows)
        if rows:
            self._with(lambda db: db.executemany("INSERT OR REPLACE INTO verified VALUES (?, ?, ?)", rows))

    def _with(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as db, db:
                db.execute("PRAGMA synchronous = OFF")
                db.execute("CREATE TABLE IF NOT EXISTS verified (place TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT)")
                return work(db)
        except (sqlite3.Error, OSError) as error:
            _log.warning(
                "What was verified cannot be remembered in %s (%s); files are hashed again.", self._path, error
            )
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                self._path.unlink(missing_ok=True)  # damaged; the next call begins a new one
            return None
