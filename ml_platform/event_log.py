"""Dagster's SQLite event log, with its connections kept open.

Dagster opens and closes a connection for each statement. Closing the last one of a database in WAL mode makes SQLite
copy the whole log back and flush it to disk, twice an event; a chain over 181 batches logs two thousand events. Kept
open, and flushed at checkpoints instead of at each event, the same log costs a fifth. What a power cut can take from
it are the last events, never its consistency; and nothing relies on them: the store is flushed by itself, and the next
run publishes again what Dagster does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._core.event_api import EventHandlerFn
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorageWatchdog
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import StaticPool
from watchdog.events import FileSystemEvent
from watchdog.observers import Observer

from ml_platform.instance import runs_folder
from ml_platform.settings import Settings

OPEN_SHARDS = 8
"""One database for the index and one for each run; a webserver looks at many runs, and keeps few open."""


class EventLog(SqliteEventLogStorage):
    """The same files as Dagster's own `SqliteEventLogStorage`: either can take over from the other."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> EventLog:
        """What Dagster calls with the block of dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> sa.Engine:
        """The shard's engine: one connection, used under the lock. The oldest run's makes room for a new one."""
        engines: dict[str, sa.Engine] = self.__dict__.setdefault("_engines", {})
        if shard not in engines:
            runs = [name for name in engines if name != "index"]
            if len(runs) >= OPEN_SHARDS:
                engines.pop(runs[0]).dispose()
            options = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
            engine = sa.create_engine(self.conn_string_for_shard(shard), poolclass=StaticPool, connect_args=options)
            sa.event.listen(engine, "connect", _flush_at_checkpoints)
            engines[shard] = engine
        return engines[shard]

    def holds(self, settings: Settings) -> bool:
        """Whether this is the event log of the home that the settings name."""
        return Path(self._base_dir) == runs_folder(settings.dagster_home)

    def has_table(self, table_name: str) -> bool:
        """Whether the index has a table. Dagster asks before each check's event; a table that is there stays."""
        known: set[str] = self.__dict__.setdefault("_known_tables", set())
        if table_name not in known and super().has_table(table_name):
            known.add(table_name)
        return table_name in known

    def watch(self, run_id: str, cursor: str | None, callback: EventHandlerFn) -> None:
        """Tell `callback` of each event as it is logged: what a run's page shows while the run goes on."""
        observer: Any = self._obs
        if observer is None:
            observer = Observer()
            observer.start()
            self._obs = observer
        watchdog = _Watchdog(self, run_id, callback, cursor)
        watch = observer.schedule(watchdog, self._base_dir, recursive=True)
        self._watchers[run_id][callback] = (watchdog, watch)

    def dispose(self) -> None:
        """Close all connections."""
        with self._db_lock:
            for engine in self.__dict__.pop("_engines", {}).values():
                engine.dispose()
        super().dispose()


class _Watchdog(SqliteEventLogStorageWatchdog):
    """Looks at the write-ahead log too: while a connection is open, events reach the database only at checkpoints."""

    def __init__(self, storage: EventLog, run_id: str, callback: EventHandlerFn, cursor: str | None) -> None:
        super().__init__(storage, run_id, callback, cursor)
        self._patterns = [self._log_path, f"{self._log_path}-wal"]

    def on_modified(self, event: FileSystemEvent) -> None:
        self._process_log()


def _flush_at_checkpoints(connection: Any, _: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
