"""Waivers: a person accepts what a gate rejected, by name, with a reason, and if they like for a time only.

A waiver holds for one data version of what the gate looked at, so it never covers other data that lands later. It is a
record in the artifact store, seen by every machine that shares the store, and is never changed: revoking it adds
another record. While it holds it is an input of the gate's stage, so the rest of the chain needs no rule of its own.

A record that is damaged waives nothing, and nor does a waiver whose folder holds one: the door stays shut in doubt.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError
from ml_platform.store import layout

if TYPE_CHECKING:
    from ml_platform.store import Manifest, Store

INPUT = "waiver"
"""Name of the input that a waiver is: with it, the same bytes have another fingerprint, and another verdict."""
WAIVED_BEFORE = "waived"
"""Name of the input, and of the fact, of a training set that rests on waivers: what was let in, and by which."""
SCHEMA_VERSION = 1
WAIVED, REVOKED = "waiver", "revocation"

_log = logging.getLogger(__name__)
_DURATION = re.compile(r"([1-9][0-9]{0,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """One waiver, as it was given.

    Args:
        pipeline, stage: whose gate it concerns.
        batch: the batch, or "" where the stage has none.
        data_version: of what the gate looked at; the waiver holds for nothing else.
        by: who gave it.
        reason: why.
        when: UTC, ISO 8601.
        expires: UTC, ISO 8601, from which it no longer holds; "" for never.
        said: what the gate had said.
        rejected: fingerprint of the rejected artifact.
    """

    pipeline: str
    stage: str
    batch: str
    data_version: str
    by: str
    reason: str
    when: str
    expires: str = ""
    said: str = ""
    rejected: str = ""

    @property
    def id(self) -> str:
        """Names the record; the input of the gate's stage."""
        return _hash(_record(WAIVED, asdict(self)))

    def expired(self, now: dt.datetime) -> bool:
        """Whether its time is over."""
        return bool(self.expires) and now >= dt.datetime.fromisoformat(self.expires)

    def describe(self) -> str:
        """Who, when, until when and why, in one line."""
        until = f"until {shown_time(self.expires)}" if self.expires else "for good"
        return f"waived by {self.by} on {shown_time(self.when)} {until}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """What takes a waiver back: `waiver` is its id, `when` is UTC in ISO 8601."""

    waiver: str
    by: str
    reason: str
    when: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A waiver and what became of it."""

    waiver: Waiver
    revocation: Revocation | None = None

    def holds(self, now: dt.datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revocation is None and not self.waiver.expired(now)


class Waivers:
    """The waivers of a pipeline in a store, as they stood at `now`. Listed once in the life of this object.

    Args:
        store: where artifacts are.
        pipeline: its name.
        now: what expiry is measured against; the present, when None.
    """

    def __init__(self, store: Store, pipeline: str, now: dt.datetime | None = None) -> None:
        self._store, self._pipeline = store, pipeline
        self.now = now or dt.datetime.now(dt.UTC)
        self._listed: dict[str, list[str]] | None = None
        self._read: dict[str, list[Entry]] = {}

    def standing(self, stage: str, batch: str, data_version: str) -> Waiver | None:
        """The waiver that holds for this data of a batch, or None."""
        if not self._folders():
            return None
        if not self._folders():  # as nearly always, and it is asked of each of ten thousand batches
            return None
        holding = [e.waiver for e in self._in(_folder(self._pipeline, stage, batch, data_version)) if e.holds(self.now)]
        return holding[0] if holding else None

    def admit(self, manifest: Manifest) -> bool:
        """Whether an artifact may be read: it rests on no waiver, or on such as still hold."""
        if WAIVED_BEFORE in manifest.inputs:
            holding = {entry.waiver.id for entry in self.entries() if entry.holds(self.now)}
            return all(waiver["id"] in holding for waiver in manifest.facts[WAIVED_BEFORE].values())
        if INPUT not in manifest.inputs or manifest.verdict != "waived":
            return True
        (version,) = (version for name, version in manifest.inputs.items() if name != INPUT)
        waiver = self.standing(manifest.stage, manifest.batch, version)
        return waiver is not None and waiver.id == manifest.inputs[INPUT]

    def entries(self) -> list[Entry]:
        """Every waiver that was ever given, oldest first."""
        found = [entry for folder in self._folders() for entry in self._in(folder)]
        return sorted(found, key=lambda entry: (entry.waiver.when, entry.waiver.id))

    def add(self, waiver: Waiver) -> None:
        """Keep a waiver for good."""
        self._keep(waiver, WAIVED, asdict(waiver), waiver.when)

    def revoke(self, waiver: Waiver, *, by: str, reason: str) -> Revocation:
        """Take a waiver back from now on."""
        revocation = Revocation(waiver=waiver.id, by=by, reason=reason, when=iso(self.now))
        self._keep(waiver, REVOKED, asdict(revocation), revocation.when)
        return revocation

    def _keep(self, waiver: Waiver, kind: str, fields: Mapping[str, str], when: str) -> None:
        data = _record(kind, fields)
        name = f"{re.sub('[^0-9TZ]', '', when.replace('+00:00', 'Z'))}-{_hash(data)}"
        place = (waiver.stage, waiver.batch, waiver.data_version, name)
        self._store.add_record(layout.waiver(self._pipeline, *place), data)
        self._listed = None
        self._read.clear()

    def _folders(self) -> Mapping[str, list[str]]:
        if self._listed is None:
            self._listed = {}
            for path in self._store.records(layout.waivers(self._pipeline)):
                if path.endswith(".json"):
                    self._listed.setdefault(path.rpartition("/")[0], []).append(path)
        return self._listed

    def _in(self, folder: str) -> list[Entry]:
        """The waivers of one folder: of one data version of one batch."""
        if folder not in self._read:
            paths = self._folders().get(folder, [])
            self._read[folder] = list(_entries(self._store.read_records(paths))) if paths else []
        return self._read[folder]


def expiry(text: str | None, now: dt.datetime) -> str:
    """When a waiver ends, UTC in ISO 8601, from what a person writes: 12h, 30d, 6w, or the last day that it holds.

    Raises:
        RefusedError: it is none of these, or it is over already.
    """
    if not text:
        return ""
    if match := _DURATION.fullmatch(text.strip()):
        return iso(now + dt.timedelta(hours=int(match[1]) * _HOURS[match[2]]))
    try:
        day = dt.date.fromisoformat(text.strip())
    except ValueError as error:
        raise RefusedError(
            "A waiver's end cannot be read.", got=repr(text), fix="write 12h, 30d, 6w, or its last day: 2026-12-31"
        ) from error
    end = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC) + dt.timedelta(days=1)
    if end <= now:
        raise RefusedError("The waiver would be over before it began.", got=text, fix="name a day to come (in UTC)")
    return iso(end)


def shown_time(iso: str) -> str:
    """A time for people, to the minute."""
    return dt.datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


def iso(time: dt.datetime) -> str:
    """A time as records have it: UTC, to the second."""
    return time.astimezone(dt.UTC).isoformat(timespec="seconds")


def _entries(found: Mapping[str, bytes]) -> Iterator[Entry]:
    waivers: list[Waiver] = []
    revoked: dict[str, Revocation] = {}
    for path in sorted(found):
        kind, fields = _parsed(path, found[path])
        if kind == WAIVED:
            waivers.append(Waiver(**fields))
        elif kind == REVOKED:
            revocation = Revocation(**fields)
            revoked.setdefault(revocation.waiver, revocation)
        else:  # it may have been a revocation
            return
    yield from (Entry(waiver=waiver, revocation=revoked.get(waiver.id)) for waiver in waivers)


def _parsed(path: str, data: bytes) -> tuple[str, dict[str, Any]]:
    """A record's kind and fields; no kind where it is not what was written, or by a later version of the platform."""
    if not path.endswith(f"-{_hash(data)}.json"):
        _log.warning("A record on a waiver was changed after it was written; it and its folder waive nothing: %s", path)
        return "", {}
    record = json.loads(data)
    if record.pop("schema") != SCHEMA_VERSION:
        _log.warning("A record on a waiver is of another version of the platform; its folder waives nothing: %s", path)
        return "", {}
    return str(record.pop("kind")), record


def _record(kind: str, fields: Mapping[str, str]) -> bytes:
    return json.dumps({"schema": SCHEMA_VERSION, "kind": kind, **fields}, sort_keys=True, indent=1).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _folder(pipeline: str, stage: str, batch: str, data_version: str) -> str:
    return layout.waiver(pipeline, stage, batch, data_version, "x").rpartition("/")[0]
