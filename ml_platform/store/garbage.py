"""Garbage: what a store holds that nobody needs. Safe while others commit, look up and read.

Kept is what `Needed` names, what is young, what belongs to a pipeline that runs now, and all that these were made from,
through their manifests' inputs. Manifests go first, bytes that no manifest names after them. Two things make it safe:

- Bytes are committed before the manifest that names them, so young bytes stay, whatever names them.
- Who relies on an old file (a commit whose bytes are there already, a run that publishes an artifact from history)
  writes that down first and then looks whether the file is still there. Here the file is taken away first, and put
  back where it was just relied on. So one of the two notices the other. (An object store knows no taking away: there
  it is asked right before, a commit looks once more at its end, and what slips through is a miss, built again.)
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from ml_platform.errors import DamagedArtifactError
from ml_platform.store import layout
from ml_platform.store.backend import Stamp
from ml_platform.store.filesystem import remove_folder
from ml_platform.store.gist import paused_collection
from ml_platform.store.local import LocalBackend
from ml_platform.store.manifest import Manifest
from ml_platform.store.store import Store

YOUNG = 24 * 3600.0
"""Seconds for which bytes stay, whether or not a manifest names them: longer than any commit takes."""
FORGOTTEN = 7 * 24 * 3600.0
"""Seconds after which scratch is garbage though it cannot be told from here whether its process lives."""


@dataclass(frozen=True, kw_only=True)
class Needed:
    """What must stay, beside what is young.

    Args:
        names: pipeline, and data version or fingerprint, of artifacts; what they were made from stays with them.
        blobs: SHA-256 of bytes that are being read.
        busy: pipelines of which nothing goes now, "" for all, and why.
        archive: keep what cannot be built again, because it holds what once landed.
    """

    names: Set[tuple[str, str]] = frozenset()
    blobs: Set[str] = frozenset()
    busy: Mapping[str, str] = field(default_factory=dict)
    archive: bool = False


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """So much of one kind of garbage was removed, or would be. `bytes` is what that frees."""

    kind: str
    what: str
    count: int
    bytes: int


@dataclass(kw_only=True)
class Collected:
    """What was removed, or would be, and remarks for people."""

    garbage: list[Garbage] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Shelf:
    """All manifests of a store by path, their stamps, and the paths of those that cannot be read."""

    manifests: Mapping[str, Manifest]
    stamps: Mapping[str, Stamp]
    damaged: Sequence[str]


@paused_collection()
def collect(
    store: Store,
    look: Callable[[Collection[Manifest]], Needed],
    *,
    keep_seconds: float,
    pipelines: Collection[str] = (),
    dry_run: bool = False,
) -> Collected:
    """Remove a store's garbage.

    Args:
        store: whose.
        look: finds out what is needed, given all artifacts. Asked again right before anything goes.
        keep_seconds: how long an artifact stays after it was built, or last relied on, though nothing needs it.
        pipelines: whose artifacts may go; all, when empty. Temporary files, claims and bytes are everyone's.
        dry_run: only say what would go.

    Raises:
        PlatformError: what is needed cannot be found out, or the store cannot be read; nothing was removed then. Also
            where a manifest was written by a later version of the platform.
    """
    keep_seconds = max(keep_seconds, YOUNG)
    now = _clock(store)
    shelf = _read_all(store)
    used = store._backend.scan(layout.USED)
    needed = look(shelf.manifests.values())
    garbage = _unneeded(shelf, used, needed, now - keep_seconds, pipelines)
    done = Collected()
    if not dry_run:
        needed = look(shelf.manifests.values())
        garbage &= _unneeded(shelf, used, needed, now - keep_seconds, pipelines)
        garbage = _remove_manifests(store, shelf, sorted(garbage), now - keep_seconds)
    _tell_artifacts(done, shelf, garbage)
    _tell_busy(done, shelf, needed, pipelines)
    left = {path: manifest for path, manifest in shelf.manifests.items() if path not in garbage}
    bytes_ = store._backend.scan(layout.BLOBS)
    if not dry_run:
        shelf = _read_all(store)
        left = dict(shelf.manifests)
    if shelf.damaged:
        done.remarks.append(
            f"{len(shelf.damaged)} manifests cannot be read ({shelf.damaged[0]}): what they name is not known, so no "
            "bytes are removed. A run builds the artifacts again; or remove these files."
        )
    else:
        named = {file.sha256 for manifest in left.values() for file in manifest.files} | needed.blobs
        _remove_bytes(store, done, bytes_, used, named, now - YOUNG, dry_run)
    _remove_scratch(store, done, dry_run)
    _remove_claims(store, done, dry_run)
    if not dry_run:
        forgotten = [path for path, stamp in used.items() if stamp.modified < now - keep_seconds]
        store._backend.remove_many(forgotten)
    return done


def _tell_busy(done: Collected, shelf: _Shelf, needed: Needed, pipelines: Collection[str]) -> None:
    """Say of which pipelines nothing goes now, and why."""
    there = {manifest.pipeline for manifest in shelf.manifests.values()}
    for name in sorted(there.intersection(pipelines or there)):
        if why := needed.busy.get(name) or needed.busy.get(""):
            done.remarks.append(f"{name} is busy: {why}. None of its artifacts was removed.")


def _clock(store: Store) -> float:
    """The time by the store's own clock, in seconds since 1970."""
    path = f"{layout.TMP}/{layout.scratch_name()}.clock"
    store._backend.renew_many([path], b"")
    try:
        return store._backend.stamps([path])[path].modified
    finally:
        store._backend.remove_many([path])


def _read_all(store: Store) -> _Shelf:
    scanned = {**store._backend.scan(layout.MANIFESTS), **store._backend.scan(layout.SUPERSEDED)}
    stamps = {path: stamp for path, stamp in scanned.items() if path.endswith(".json")}
    stages: dict[tuple[str, str], dict[str, Stamp]] = {}
    for path, stamp in stamps.items():
        top, pipeline, stage, *_ = path.split("/")
        if top == layout.MANIFESTS:
            stages.setdefault((pipeline, stage), {})[path] = stamp
    found: dict[str, Manifest] = {}
    for (pipeline, stage), some in stages.items():
        found |= {path: gist.manifest for path, gist in store._gists(pipeline, stage, some).items()}
    damaged = []
    for path, data in store._backend.read_many([path for path in stamps if path not in found]).items():
        try:
            found[path] = Manifest.from_json(data)
        except DamagedArtifactError:
            damaged.append(path)
    return _Shelf(found, stamps, sorted(damaged))


def _unneeded(
    shelf: _Shelf, used: Mapping[str, Stamp], needed: Needed, before: float, pipelines: Collection[str]
) -> set[str]:
    """The paths of manifests that may go."""
    by_name: dict[tuple[str, str], list[str]] = {}
    for path, manifest in shelf.manifests.items():
        by_name.setdefault((manifest.pipeline, manifest.data_version), []).append(path)

    def stays(path: str, manifest: Manifest) -> bool:
        pipeline = manifest.pipeline
        return (
            not needed.names.isdisjoint({(pipeline, manifest.data_version), (pipeline, manifest.fingerprint)})
            or bool(pipelines and pipeline not in pipelines)
            or not needed.busy.keys().isdisjoint({pipeline, ""})
            or _last_use(path, shelf.stamps[path], used) >= before
            or (needed.archive and any(name.partition("/")[0] == "landing" for name in manifest.inputs))
        )

    todo = [path for path, manifest in shelf.manifests.items() if stays(path, manifest)]
    kept = set(todo)
    while todo:
        manifest = shelf.manifests[todo.pop()]
        for version in manifest.inputs.values():  # whatever the input is called
            new = [path for path in by_name.get((manifest.pipeline, version), ()) if path not in kept]
            kept.update(new)
            todo += new
    return shelf.manifests.keys() - kept


def _last_use(path: str, stamp: Stamp, used: Mapping[str, Stamp]) -> float:
    mark = used.get(layout.used(path))
    return max(stamp.modified, mark.modified if mark else 0.0)


def _relied_on(store: Store, since: float) -> Callable[[Sequence[str]], set[str]]:
    """Says of which files somebody wrote down since then that he relies on them."""

    def wanted(paths: Sequence[str]) -> set[str]:
        marks = store._backend.stamps([layout.used(path) for path in paths])
        return {path for path in paths if layout.used(path) in marks and marks[layout.used(path)].modified >= since}

    return wanted


def _remove_manifests(store: Store, shelf: _Shelf, paths: Sequence[str], before: float) -> set[str]:
    stamps = store._backend.stamps(paths)
    same = [path for path in paths if path in stamps and stamps[path].text == shelf.stamps[path].text]
    data = store._backend.read_many(same)
    wanted = _relied_on(store, before)
    removed = store._backend.remove_unless(same, wanted)
    late = wanted(sorted(removed))
    store._backend.create({path: data[path] for path in late})
    return removed - late


def _tell_artifacts(done: Collected, shelf: _Shelf, paths: Iterable[str]) -> None:
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for path in paths:
        manifest = shelf.manifests[path]
        name = f"{manifest.pipeline}/{manifest.stage}"
        count[name] += 1
        size[name] += shelf.stamps[path].size
    for name in sorted(count):
        done.garbage.append(Garbage(kind="artifacts", what=name, count=count[name], bytes=size[name]))


def _remove_bytes(
    store: Store,
    done: Collected,
    scanned: Mapping[str, Stamp],
    used: Mapping[str, Stamp],
    named: Set[str],
    before: float,
    dry_run: bool,
) -> None:
    gone = {
        path
        for path, stamp in scanned.items()
        if path.rpartition("/")[2] not in named and _last_use(path, stamp, used) < before
    }
    if not dry_run:
        gone = store._backend.remove_unless(sorted(gone), _relied_on(store, before))
    _tell(done, "bytes", "that no artifact names", [scanned[path].size for path in gone])


def _remove_scratch(store: Store, done: Collected, dry_run: bool) -> None:
    sizes = []
    root = store._backend.scratch_root
    for entry in sorted(root.iterdir()) if root.is_dir() else ():
        size, touched = _measure(entry)
        made = layout.scratch_made(entry.name)
        lives = made[1] if made else None
        if lives is False or (lives is None and touched < time.time() - FORGOTTEN):
            sizes.append(size)
            if not dry_run and entry.is_dir():
                remove_folder(entry)
            elif not dry_run:
                entry.unlink(missing_ok=True)
    if not isinstance(store._backend, LocalBackend):
        scanned = store._backend.scan(layout.TMP)
        now = _clock(store)
        old = {path: stamp.size for path, stamp in scanned.items() if stamp.modified < now - YOUNG}
        sizes += old.values()
        if not dry_run:
            store._backend.remove_many(list(old))
    _tell(done, "temporary files", "that dead processes left", sizes)


def _measure(path: Path) -> tuple[int, float]:
    """The size of all files below a path, and when anything there was last written."""
    size, touched = 0, 0.0
    for each in (path, *path.rglob("*")):
        try:
            stat = os.lstat(each)
        except FileNotFoundError:
            continue
        size += 0 if each.is_dir() else stat.st_size
        touched = max(touched, stat.st_mtime)
    return size, touched


def _remove_claims(store: Store, done: Collected, dry_run: bool) -> None:
    dead = store.claims.dead()
    if not dry_run:
        store._backend.remove_many(dead)
    _tell(done, "claims", "of dead processes", [0 for path in dead if not path.startswith(layout.OWNERS)])


def _tell(done: Collected, kind: str, what: str, sizes: Collection[int]) -> None:
    if sizes:
        done.garbage.append(Garbage(kind=kind, what=what, count=len(sizes), bytes=sum(sizes)))
