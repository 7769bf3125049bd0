"""Dagster's SQLite index of events, read without Dagster, whose import takes longer than all else that a look does.

The tables are internal to Dagster, which is pinned; a test holds this reader against Dagster's own answers. Where the
instance keeps its events elsewhere, `published.InstanceEvents` asks Dagster.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_platform.errors import SetupError
from ml_platform.instance import runs_folder

BUSY_SECONDS = 30.0


class EventIndex:
    """Answers what `published.Events` asks, from `history/runs/index.db` under Dagster's home.

    Args:
        home: Dagster's instance folder. Where it has no index yet, nothing was published.

    Raises:
        SetupError: by each question, where the index is damaged or cannot be read.
    """

    def __init__(self, home: Path) -> None:
        self._path = runs_folder(home) / "index.db"

    def latest_tag(self, key: Sequence[str], event_type: str, tag: str) -> dict[str, str]:
        """See `published.Events`."""
        rows = self._rows(
            f"""SELECT latest.partition, tags.value FROM (
                    SELECT partition, max(id) AS id FROM event_logs
                    WHERE asset_key = :key AND dagster_event_type = :type AND partition IS NOT NULL {_SINCE}
                    GROUP BY partition
                ) AS latest JOIN asset_event_tags AS tags ON tags.event_id = latest.id WHERE tags.key = :tag""",
            key,
            type=event_type,
            tag=tag,
        )
        return dict(rows)

    def latest_ids(self, key: Sequence[str], event_type: str) -> dict[str, int]:
        """See `published.Events`."""
        rows = self._rows(
            f"""SELECT coalesce(partition, ''), max(id) FROM event_logs
                WHERE asset_key = :key AND dagster_event_type = :type {_SINCE}
                GROUP BY partition""",
            key,
            type=event_type,
        )
        return dict(rows)

    def latest_tags(self, key: Sequence[str]) -> Mapping[str, str]:
        """See `published.Events`."""
        rows = self._rows(
            f"""SELECT event FROM event_logs
                WHERE asset_key = :key AND dagster_event_type = 'ASSET_MATERIALIZATION' {_SINCE}
                ORDER BY id DESC LIMIT 1""",
            key,
        )
        if not rows:
            return {}
        event = json.loads(rows[0][0])
        tags: Mapping[str, str] = event["dagster_event"]["event_specific_data"]["materialization"]["tags"]
        return tags

    def tags_of(self, key: Sequence[str], event_type: str, ids: Collection[int]) -> dict[int, Mapping[str, str]]:
        """See `published.Events`."""
        rows = self._rows(
            f"""SELECT id, coalesce(json_extract(event, '{_DATA}.materialization.tags'),
                                    json_extract(event, '{_DATA}.asset_observation.tags'), '{{}}')
                FROM event_logs WHERE asset_key = :key AND dagster_event_type = :type
                AND id IN (SELECT value FROM json_each(:ids))""",
            key,
            type=event_type,
            ids=json.dumps(list(ids)),
        )
        return {id_: json.loads(tags) for id_, tags in rows}

    def _rows(self, query: str, key: Sequence[str], **values: str) -> list[tuple[Any, ...]]:
        if not self._path.exists():
            return []
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as db:
                db.execute("PRAGMA query_only = 1")
                if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'asset_event_tags'").fetchone() is None:
                    return []  # another process is making the tables
                name = json.dumps(list(key))
                return db.execute(query, {"key": name, "since": _wiped(db, name), **values}).fetchall()
        except sqlite3.Error as error:
            raise SetupError(
                "Dagster's index of events cannot be read.",
                where=self._path,
                got=error,
                fix=f"make it readable; if it is damaged, move the folder {self._path.parent.parent} away: the history "
                "of runs goes with it, and the next run publishes again what the store holds",
                passing="locked" in str(error) or None,
            ) from error


_DATA = "$.dagster_event.event_specific_data"
_SINCE = "AND timestamp > :since"


def _wiped(db: sqlite3.Connection, name: str) -> str:
    """When the asset was last wiped in the UI, as the index writes times; the beginning of time where it never was."""
    row = db.execute("SELECT asset_details FROM asset_keys WHERE asset_key = ?", (name,)).fetchone()
    seconds = json.loads(row[0]).get("last_wipe_timestamp") if row and row[0] else None
    return dt.datetime.fromtimestamp(seconds or 0, dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
