"""A small SQLite file that remembers what would otherwise be done again. Losing it costs time and nothing else."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
BUSY_SECONDS = 30.0


class Memory:
    """May be deleted at any time. One that is damaged is thrown away; where none can be kept, nothing is remembered.

    Args:
        path: of the file; its folder is made where it is missing.
        tables: SQL that makes the tables.
        without: what follows from a memory that cannot be kept, for the warning.
    """

    def __init__(self, path: Path, tables: str, *, without: str) -> None:
        self._path, self._tables, self._without = path, tables, without

    def use(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Do something with the database and commit it. None where the memory fails, which a warning tells."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as db, db:
                db.execute("PRAGMA synchronous = OFF")
                try:
                    return work(db)
                except sqlite3.OperationalError as error:
                    if "no such table" not in str(error):
                        raise
                    db.executescript(self._tables)
                    return work(db)
        except (sqlite3.Error, OSError) as error:
            _log.warning("Nothing can be remembered in %s (%s); %s.", self._path, error, self._without)
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                self._path.unlink(missing_ok=True)  # damaged; the next call begins a new one
            return None
