"""Waivers: a person accepts what a gate rejected, by name, with a reason, and if they like for a time only.

A waiver holds for one data version of what the gate looked at, so it never covers other data that lands later. While
it holds it is an input of the gate's stage, so the rest of the chain needs no rule of its own.

A record that is damaged waives nothing, and nor does a waiver whose folder holds one: the door stays shut in doubt.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ml_platform.errors import RefusedError
from ml_platform.gates.decisions import Decision, Entry, Records, Revocation
from ml_platform.store import layout

if TYPE_CHECKING:
    from ml_platform.store import Manifest, Store

INPUT = "waiver"
"""Name of the input that a waiver is: with it, the same bytes have another fingerprint, and another verdict."""
HISTORY = "history"
"""Name of the input that says how much a gate could compare the data with, where that was little."""
WAIVED_BEFORE = "waived"
"""Name of the input, and of the fact, of a training set that rests on waivers: what was let in, and by which."""

_DURATION = re.compile(r"([1-9][0-9]{0,5})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


@dataclass(frozen=True, kw_only=True)
class Waiver(Decision):
    """One waiver, as it was given. Its id is the input of the gate's stage.

    Args:
        stage: whose gate it concerns; `batch` is "" where the stage has none.
        data_version: of what the gate looked at; the waiver holds for nothing else.
        expires: UTC, ISO 8601, from which it no longer holds; "" for never.
        said: what the gate had said.
        rejected: fingerprint of the rejected artifact.
    """

    kind: ClassVar[str] = "waiver"
    stage: str
    data_version: str
    expires: str = ""
    said: str = ""
    rejected: str = ""

    def expired(self, now: dt.datetime) -> bool:
        """Whether its time is over."""
        return bool(self.expires) and now >= dt.datetime.fromisoformat(self.expires)

    def describe(self) -> str:
        """Who, when, until when and why, in one line."""
        until = f"until {shown_time(self.expires)}" if self.expires else "for good"
        return f"waived by {self.by} on {shown_time(self.when)} {until}: {self.reason}"


class Waivers:
    """The waivers of a pipeline in a store, as they stood at `now`. Listed once in the life of this object.

    Args:
        store: where artifacts are.
        pipeline: its name.
        now: what expiry is measured against; the present, when None.
    """

    def __init__(self, store: Store, pipeline: str, now: dt.datetime | None = None) -> None:
        self.records = Records(store, pipeline)
        self.now = now or dt.datetime.now(dt.UTC)

    def standing(self, stage: str, batch: str, data_version: str) -> Waiver | None:
        """The waiver that holds for this data of a batch, or None."""
        if not self.records.folders():  # as nearly always, and it is asked of each of ten thousand batches
            return None
        given = self._in(layout.waiver(self.records.pipeline, stage, batch, data_version))
        holding = [entry.decision for entry in given if entry.holds(self.now)]
        return holding[0] if holding else None

    def admit(self, manifest: Manifest) -> bool:
        """Whether an artifact may be read: it rests on no waiver, or on such as still hold."""
        if WAIVED_BEFORE in manifest.inputs:
            holding = {entry.decision.id for entry in self.entries() if entry.holds(self.now)}
            return all(waiver["id"] in holding for waiver in manifest.facts[WAIVED_BEFORE].values())
        if INPUT not in manifest.inputs or manifest.verdict != "waived":
            return True
        waiver = self.standing(manifest.stage, manifest.batch, looked_at(manifest.inputs))
        return waiver is not None and waiver.id == manifest.inputs[INPUT]

    def entries(self) -> list[Entry[Waiver]]:
        """Every waiver that was ever given, oldest first."""
        others = layout.withdrawals(self.records.pipeline)
        folders = [folder for folder in self.records.folders() if not folder.startswith(others)]
        found = [entry for folder in folders for entry in self._in(folder)]
        return sorted(found, key=lambda entry: (entry.decision.when, entry.decision.id))

    def add(self, waiver: Waiver) -> None:
        """Keep a waiver for good."""
        self.records.add(_folder(waiver), waiver)

    def revoke(self, waiver: Waiver, *, by: str, reason: str) -> Revocation:
        """Take a waiver back from now on."""
        return self.records.revoke(_folder(waiver), waiver, by=by, reason=reason, when=iso(self.now))

    def _in(self, folder: str) -> list[Entry[Waiver]]:
        """The waivers of one folder: of one data version of one batch."""
        return self.records.entries(folder, Waiver) or []


def looked_at(inputs: Mapping[str, str]) -> str:
    """The data version of what a gate looks at, among its inputs."""
    (version,) = (version for name, version in inputs.items() if name not in (INPUT, HISTORY))
    return version


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


def _folder(waiver: Waiver) -> str:
    return layout.waiver(waiver.pipeline, waiver.stage, waiver.batch, waiver.data_version)
