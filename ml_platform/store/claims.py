"""Who builds what at this moment, so that two runs that share a store do not build the same artifact twice.

    with store.claims.holding("flights", "features", fingerprints) as mine:
        ...look up `mine` in the store once more: another may have finished meanwhile; build and commit the rest...
    while others := store.claims.held("flights", "features", left):
        ...wait, then look them up; what is neither held nor in the store can be taken...

A claim is the file `claims/<pipeline>/<stage>/<fingerprint>.<generation>`; of several who create it at once one
succeeds. It names its owner, whose record in `claims/.owners/` is renewed while it holds anything. The claim of a dead
owner is taken over by creating the next generation, never by removing the old one first: of several who find the same
claim dead, one gets it. An owner is dead when its process is gone from this machine; seen from another one, when its
record was not renewed for a minute by the store's own clock.

Claims save work and guard nothing: should two ever hold the same one (a process frozen for minutes wakes up), both
build, and the first to commit wins.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ml_platform.errors import StoreError
from ml_platform.processes import ProcessId, is_alive, this_process
from ml_platform.store import layout
from ml_platform.store.backend import Backend

_log = logging.getLogger(__name__)

RENEWED_EVERY = 15.0
"""Seconds between two renewals of an owner's record."""
DEAD_AFTER = 60.0
"""Seconds without renewal after which the owner is taken for dead, where its process cannot be looked at."""
FROZEN_AFTER = 600.0
"""The same where its process can be looked at, and is there: stopped, or cut off from the store."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a claim, and since when (UTC, ISO 8601)."""

    process: ProcessId
    since: str

    def __str__(self) -> str:
        return f"{self.process} since {self.since[11:19]} UTC"


@dataclass(frozen=True, kw_only=True)
class _Claim:
    path: str
    generation: int
    token: str
    since: str


class Claims:
    """What this process holds in a store, and what others do. Safe to use from several threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._seen: dict[tuple[str, str], tuple[str, str]] = {}  # what a claim says, by its path and stamp
        self._begin()

    def _begin(self) -> None:
        self._pid, self._token, self._lock = os.getpid(), secrets.token_hex(8), threading.RLock()
        self._mine: dict[tuple[str, str, str], list[str]] = {}  # paths: the claim's own, then dead ones below it
        self._stop: threading.Event | None = None
        self._recorded = False

    def take(self, pipeline: str, stage: str, fingerprints: Iterable[str]) -> set[str]:
        """Claim artifacts for this process. Returns those that are now its own: look them up once more, then build.

        The others are held by someone alive: see `held`.

        Raises:
            StoreError: the store cannot be reached or written.
        """
        wanted = list(dict.fromkeys(fingerprints))
        if not wanted:
            return set()
        with self._locked():
            self._renew()  # first: a claim whose owner has no record is a dead one's
            standing = self._standing(pipeline, stage)
            living = self._living(standing[print_][-1].token for print_ in wanted if print_ in standing)
            mine: set[str] = set()
            new: dict[str, str] = {}
            for print_ in wanted:
                top = standing[print_][-1] if print_ in standing else None
                if top is not None and top.token == self._token:
                    mine.add(print_)
                elif top is None or top.token not in living:
                    new[layout.claim(pipeline, stage, print_, top.generation + 1 if top else 1)] = print_
            content = json.dumps({"owner": self._token, "since": _now()}).encode()
            for path in self._backend.claim(list(new), content):
                print_ = new[path]
                mine.add(print_)
                self._mine[pipeline, stage, print_] = [path, *(claim.path for claim in standing.get(print_, ()))]
            return mine

    def release(self, pipeline: str, stage: str, fingerprints: Iterable[str]) -> None:
        """Give claims back, as soon as their artifacts are committed or have failed. Those of others stay."""
        with self._locked():
            found = [self._mine.pop((pipeline, stage, print_), []) for print_ in dict.fromkeys(fingerprints)]
            self._backend.remove_many([path for paths in found for path in paths])

    def held(self, pipeline: str, stage: str, fingerprints: Iterable[str]) -> dict[str, Owner]:
        """Those of the artifacts that someone else, who is alive, is building."""
        standing = self._standing(pipeline, stage)
        tops = {print_: standing[print_][-1] for print_ in fingerprints if print_ in standing}
        with self._locked():
            living = self._living(top.token for top in tops.values())
        return {
            print_: Owner(process=living[top.token], since=top.since)
            for print_, top in tops.items()
            if top.token in living
        }

    @contextlib.contextmanager
    def holding(self, pipeline: str, stage: str, fingerprints: Iterable[str]) -> Iterator[set[str]]:
        """`take`, and `release` at the end what was taken."""
        mine = self.take(pipeline, stage, fingerprints)
        try:
            yield mine
        finally:
            self.release(pipeline, stage, mine)

    def close(self) -> None:
        """Give everything back."""
        with self._locked():
            self._backend.remove_many([path for paths in self._mine.values() for path in paths])
            self._mine.clear()

    def pipelines(self) -> set[str]:
        """The pipelines of which anyone alive, this process too, is building something."""
        scanned = self._backend.scan(layout.CLAIMS)
        said = self._read({p: stamp.text for p, stamp in scanned.items() if not p.startswith(f"{layout.OWNERS}/")})
        with self._locked():
            living = {self._token, *self._living(token for token, _ in said.values())}
        return {path.split("/")[1] for path, (token, _) in said.items() if token in living}

    def dead(self) -> list[str]:
        """The paths of claims and owners' records that nobody needs any more."""
        scanned = self._backend.scan(layout.CLAIMS)
        records = {path: layout.owner_token(path) for path in scanned if path.startswith(f"{layout.OWNERS}/")}
        said = self._read({path: stamp.text for path, stamp in scanned.items() if path not in records})
        tokens = {**{path: token for path, (token, _) in said.items()}, **records}
        with self._locked():
            living = {self._token, *self._living(tokens.values())}
        return sorted(path for path, token in tokens.items() if token not in living)

    # Who lives

    def _living(self, tokens: Iterable[str]) -> dict[str, ProcessId]:
        """Those of other owners that are alive."""
        records = [layout.owner(token) for token in {*tokens} - {self._token, ""}]
        owners: dict[str, ProcessId] = {}
        for path, data in self._backend.read_many(records).items():
            with contextlib.suppress(ValueError, TypeError):  # a record that cannot be read is nobody's
                owners[path] = ProcessId(**json.loads(data))
        here = this_process().boot
        # Another start of a machine of this name may be another machine of this name: there the record decides.
        lives = {path: is_alive(owner) if owner.boot == here else None for path, owner in owners.items()}
        owners = {path: owner for path, owner in owners.items() if lives[path] is not False}
        if not owners:
            return {}
        self._renew()
        stamps = self._backend.stamps([layout.owner(self._token), *owners])
        now = stamps[layout.owner(self._token)].modified
        return {
            layout.owner_token(path): owner
            for path, owner in owners.items()
            if path in stamps and now - stamps[path].modified < (FROZEN_AFTER if lives[path] else DEAD_AFTER)
        }

    def _renew(self) -> None:
        self._recorded = True
        self._backend.renew_many([layout.owner(self._token)], json.dumps(this_process().to_dict()).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One thread at a time; afterwards the record is renewed for as long as anything is held, or removed."""
        if self._pid != os.getpid():  # a forked process holds nothing of its parent's
            self._begin()
        with self._lock:
            try:
                yield
            finally:
                if self._mine and self._stop is None:
                    self._stop = threading.Event()
                    threading.Thread(target=self._heartbeat, args=(self._stop,), name="claims", daemon=True).start()
                elif not self._mine:
                    if self._stop is not None:
                        self._stop.set()
                        self._stop = None
                    if self._recorded:
                        self._backend.remove_many([layout.owner(self._token)])
                        self._recorded = False

    def _heartbeat(self, stop: threading.Event) -> None:
        while not stop.wait(RENEWED_EVERY):
            with self._lock:
                if stop.is_set():
                    return
                try:
                    self._renew()
                except StoreError as error:
                    _log.warning("Claims could not be renewed; others may take them: %s", error)

    # What is claimed

    def _standing(self, pipeline: str, stage: str) -> dict[str, list[_Claim]]:
        """The claims on a stage's artifacts, by fingerprint, the highest generation last."""
        stamps = self._backend.scan(layout.claims(pipeline, stage))
        said = self._read({path: stamp.text for path, stamp in stamps.items()})
        result: dict[str, list[_Claim]] = {}
        for path, (token, since) in said.items():
            print_, _, generation = path.rpartition("/")[2].rpartition(".")
            if generation.isdigit():
                claim = _Claim(path=path, generation=int(generation), token=token, since=since)
                result.setdefault(print_, []).append(claim)
        return {print_: sorted(claims, key=lambda claim: claim.generation) for print_, claims in result.items()}

    def _read(self, stamps: dict[str, str]) -> dict[str, tuple[str, str]]:
        """What claims say: the owner's token ("" where that cannot be read), and since when."""
        new = [path for path, stamp in stamps.items() if not stamp or (path, stamp) not in self._seen]
        data = self._backend.read_many(new)
        for path in new:
            try:
                record = json.loads(data.get(path, b""))
                token = str(record["owner"])
                said = (token if token.isalnum() else "", str(record["since"]))
            except (ValueError, KeyError, TypeError):
                said = ("", "")
            if path in data:
                self._seen[path, stamps[path]] = said
        return {
            path: self._seen[path, stamp] for path, stamp in stamps.items() if (path, stamp) in self._seen
        }  # the others were given back since they were listed


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
