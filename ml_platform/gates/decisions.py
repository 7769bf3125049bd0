"""What a person decides about a batch against the rule, by name and with a reason: waivers and withdrawals.

A decision is a record in the artifact store, seen by every machine that shares the store, and is never changed:
revoking it adds another record. What concerns one matter is in one folder and is read together. A folder that holds a
damaged record says nothing that can be relied on, and whoever reads it keeps the door shut.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ml_platform.store import layout

if TYPE_CHECKING:
    from ml_platform.store import Store

SCHEMA_VERSION = 1
REVOKED = "revocation"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision, as it was made.

    Args:
        pipeline: whose batch it concerns.
        batch: the batch, or "" where there is none.
        by: who decided.
        reason: why.
        when: UTC, ISO 8601.
    """

    kind: ClassVar[str]
    pipeline: str
    batch: str
    by: str
    reason: str
    when: str

    @property
    def id(self) -> str:
        """Names the record."""
        return _hash(_record(self.kind, asdict(self)))

    def expired(self, now: dt.datetime) -> bool:
        """Whether its time is over."""
        return False


D = TypeVar("D", bound=Decision)


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """What takes a decision back: `decision` is its id, `when` is UTC in ISO 8601."""

    decision: str
    by: str
    reason: str
    when: str


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[D]):
    """A decision and what became of it."""

    decision: D
    revocation: Revocation | None = None

    def holds(self, now: dt.datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revocation is None and not self.decision.expired(now)


class Records:
    """The records of a pipeline's decisions in a store. Listed once in the life of this object, whoever asks.

    Args:
        store: where artifacts are.
        pipeline: its name.
    """

    def __init__(self, store: Store, pipeline: str) -> None:
        self._store, self.pipeline = store, pipeline
        self._listed: dict[str, list[str]] | None = None
        self._read: dict[str, list[Entry[Any]] | None] = {}

    def folders(self) -> Mapping[str, list[str]]:
        """The paths of all records, by folder."""
        if self._listed is None:
            self._listed = {}
            for path in self._store.records(layout.waivers(self.pipeline)):
                if path.endswith(".json"):
                    self._listed.setdefault(path.rpartition("/")[0], []).append(path)
        return self._listed

    def entries(self, folder: str, of: type[D]) -> list[Entry[D]] | None:
        """The decisions of one folder, oldest first; None where a record is damaged: it may be a revocation."""
        if folder not in self._read:
            paths = self.folders().get(folder, [])
            self._read[folder] = _entries(self._store.read_records(paths), of) if paths else []
        return self._read[folder]

    def add(self, folder: str, decision: Decision) -> None:
        """Keep a decision for good."""
        self._keep(folder, decision.kind, asdict(decision), decision.when)

    def revoke(self, folder: str, decision: Decision, *, by: str, reason: str, when: str) -> Revocation:
        """Take a decision back from now on."""
        revocation = Revocation(decision=decision.id, by=by, reason=reason, when=when)
        self._keep(folder, REVOKED, asdict(revocation), when)
        return revocation

    def _keep(self, folder: str, kind: str, fields: Mapping[str, str], when: str) -> None:
        data = _record(kind, fields)
        name = f"{re.sub('[^0-9TZ]', '', when.replace('+00:00', 'Z'))}-{_hash(data)}"
        self._store.add_record(layout.decision(folder, name), data)
        self._listed = None
        self._read.clear()


def _entries(found: Mapping[str, bytes], of: type[D]) -> list[Entry[D]] | None:
    decisions: list[D] = []
    revoked: dict[str, Revocation] = {}
    for path in sorted(found):
        kind, fields = _parsed(path, found[path])
        if kind == of.kind:
            decisions.append(of(**fields))
        elif kind == REVOKED:
            revocation = Revocation(**fields)
            revoked.setdefault(revocation.decision, revocation)
        else:
            return None
    return [Entry(decision=decision, revocation=revoked.get(decision.id)) for decision in decisions]


def _parsed(path: str, data: bytes) -> tuple[str, dict[str, Any]]:
    """A record's kind and fields; no kind where it is not what was written, or by a later version of the platform."""
    if not path.endswith(f"-{_hash(data)}.json"):
        _log.warning("A record was changed after it was written; neither it nor its folder counts: %s", path)
        return "", {}
    record = json.loads(data)
    if record.pop("schema") != SCHEMA_VERSION:
        _log.warning("A record is of another version of the platform; neither it nor its folder counts: %s", path)
        return "", {}
    return str(record.pop("kind")), record


def _record(kind: str, fields: Mapping[str, str]) -> bytes:
    return json.dumps({"schema": SCHEMA_VERSION, "kind": kind, **fields}, sort_keys=True, indent=1).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
