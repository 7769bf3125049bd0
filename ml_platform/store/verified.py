"""What was read and verified, remembered: what has not changed since is neither read nor hashed again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from ml_platform.store.memory import Memory

_AT_ONCE = 500

# The number in the second name is that of the records' form: one of another form is not seen.
_TABLES = """
CREATE TABLE IF NOT EXISTS verified (place TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT);
CREATE TABLE IF NOT EXISTS manifest_1 (
    folder TEXT, name TEXT, stamp TEXT, record TEXT, PRIMARY KEY (folder, name)
) WITHOUT ROWID;
"""


class Verified:
    """Hashes of files and gists of manifests by place and stamp (size, time, inode, ETag: whatever changes with the
    bytes), in one SQLite file.

    Only a memory aid: it may be deleted at any time, and where it cannot be kept everything is read and hashed again.
    """

    def __init__(self, path: Path) -> None:
        self._memory = Memory(path, _TABLES, without="files are hashed again")

    def known(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """The SHA-256 of each place that is remembered with exactly this stamp."""
        query = "SELECT place, stamp, sha256 FROM verified WHERE place IN ({})"
        return self._look_up(query, (), stamps)

    def remember(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Remember (place, stamp, sha256)."""
        self._insert("INSERT OR REPLACE INTO verified VALUES (?, ?, ?)", rows)

    def manifests(self, folder: str, stamps: Mapping[str, str]) -> dict[str, str]:
        """What is remembered of manifests, by name in their folder, where it has exactly this stamp."""
        query = "SELECT name, stamp, record FROM manifest_1 WHERE folder = ? AND name IN ({})"
        return self._look_up(query, (folder,), stamps)

    def remember_manifests(self, folder: str, rows: Iterable[tuple[str, str, str]]) -> None:
        """Remember (name, stamp, what is to be remembered)."""
        values = ((folder, *row) for row in rows)
        self._insert("INSERT OR REPLACE INTO manifest_1 VALUES (?, ?, ?, ?)", values)

    def _look_up(self, query: str, first: tuple[str, ...], stamps: Mapping[str, str]) -> dict[str, str]:
        if not stamps:
            return {}
        names = list(stamps)

        def look_up(db: sqlite3.Connection) -> dict[str, str]:
            result: dict[str, str] = {}
            for start in range(0, len(names), _AT_ONCE):
                some = names[start : start + _AT_ONCE]
                rows = db.execute(query.format(",".join("?" * len(some))), (*first, *some))
                result.update((name, value) for name, stamp, value in rows if stamps[name] == stamp)
            return result

        return self._memory.use(look_up) or {}

    def _insert(self, query: str, rows: Iterable[tuple[str, ...]]) -> None:
        rows = list(rows)
        if rows:
            self._memory.use(lambda db: db.executemany(query, rows))
