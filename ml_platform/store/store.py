"""Artifacts: committed once, found by fingerprint, checked before they are trusted.

    store = Store("s3://bucket/folder", cache=settings.cache, storage_options=settings.storage_options)
    with store.scratch() as folder:
        ...write folder / "part.parquet"...
        manifest = store.commit(Manifest(..., files=()), {"part.parquet": folder / "part.parquet"})
    store.path(store.find(pipeline, stage, fingerprint).file("part.parquet"))

A commit puts the bytes first, under names that are their hashes, and the manifest last: killed at any instant it
leaves nothing but bytes that no manifest names. The first of several writers wins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ml_platform.errors import DamagedArtifactError, StoreError
from ml_platform.files import sha256
from ml_platform.store import layout
from ml_platform.store.backend import Backend, Stamp
from ml_platform.store.claims import Claims
from ml_platform.store.copies import Copies, damaged
from ml_platform.store.filesystem import StorageOptions, local_folder, remove_folder, telling
from ml_platform.store.gist import Gist, paused_collection, read_gists, unchanged, write_gist
from ml_platform.store.local import LocalBackend
from ml_platform.store.manifest import ArtifactFile, Manifest
from ml_platform.store.remote import RemoteBackend
from ml_platform.store.verified import Verified

_log = logging.getLogger(__name__)
_A = TypeVar("_A")
_B = TypeVar("_B")
_THREADS = 8

ASIDE = 0.05
"""Seconds after which a missing file is looked for once more: a collection of garbage takes a file out of sight for an
instant before it finds out that somebody has just relied on it."""
RENEWED_AFTER = 3600.0
"""Seconds after which a commit that relies on bytes from before says so. Far less than garbage must be old."""


class Store:
    """Artifacts in a folder or behind an fsspec URL. Cheap to make, to pickle and to share between threads.

    Args:
        url: a folder (`file://` or a plain path), or any fsspec URL.
        cache: a local folder for copies of remote files, for scratch beside a remote store, and for what was verified.
        storage_options: options for fsspec by protocol, as in `Settings.storage_options`.

    Every method raises StoreError where the store is unreachable, refuses, or is full.
    """

    def __init__(self, url: str | Path, *, cache: Path, storage_options: StorageOptions | None = None) -> None:
        self.url, self.cache = str(url), Path(cache).absolute()
        folder = local_folder(self.url)
        self._backend: Backend
        if folder is not None:
            self._backend = LocalBackend(folder)
        else:
            self._backend = RemoteBackend(self.url, storage_options, self.cache / layout.TMP)
        self._verified = Verified(self.cache / "verified.sqlite")
        self.copies = Copies(self.cache, self._backend, self._verified)
        self._claims: Claims | None = None
        self._warned: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_claims": None}  # what a process holds does not travel

    @property
    def backend(self) -> Backend:
        """Where its bytes are, for what is kept beside the artifacts."""
        return self._backend

    @property
    def claims(self) -> Claims:
        """Who builds what at this moment."""
        if self._claims is None:
            self._claims = Claims(self._backend)
        return self._claims

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new local folder to write into, removed at the end with all that is in it. Committing from it moves."""
        folder = self._backend.scratch_root / layout.scratch_name()
        with telling("No scratch folder can be made.", folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove_folder(folder)

    def commit(self, draft: Manifest, files: Mapping[str, Path]) -> Manifest:
        """Commit one artifact. See `commit_many`."""
        return self.commit_many([(draft, files)])[0]

    def commit_many(
        self, drafts: Sequence[tuple[Manifest, Mapping[str, Path]]], *, replace: bool = False
    ) -> list[Manifest]:
        """Commit artifacts: all bytes first, then the manifests. What was in scratch may have moved away afterwards.

        Args:
            drafts: for each, the manifest without its files (and without `created`, which is now unless it is given),
                and its files by name inside the artifact.
            replace: let these stand where the ones that were committed before have another data version: those are
                kept aside, under `superseded`.

        Returns:
            The manifests that stand: for each, the first one that was committed whole under this fingerprint, or with
            `replace`, under this fingerprint with this data version.
        """
        paths = list(dict.fromkeys(path for _, files in drafts for path in files.values()))
        with telling("A file to commit cannot be read.", paths[0].parent if paths else None):
            described = dict(zip(paths, _parallel(_describe, paths), strict=True))
        sources = {sha256: path for path, (sha256, _) in described.items()}
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        manifests = [
            dataclasses.replace(draft, files=_files(files, described), created=draft.created or now)
            for draft, files in drafts
        ]
        everything = {file.sha256: file for manifest in manifests for file in manifest.files}
        absent, stamps = self._check(everything.values())
        old = [layout.blob(sha256) for sha256, stamp in stamps.items() if stamp.modified < time.time() - RENEWED_AFTER]
        self._mark_used(old)
        put = {layout.blob(sha256): sources[sha256] for sha256 in absent}
        self._backend.put_many(put)
        made = self._backend.stamps(list(put))
        self._remember((layout.blob(sha256), made[layout.blob(sha256)], sha256) for sha256 in absent)
        stand = self._publish(manifests, replace=replace)
        gone = {*old} - self._backend.stamps(old).keys()  # removed as garbage in the instant before they were marked
        self._backend.put_many({path: sources[path.rpartition("/")[2]] for path in gone})
        if isinstance(self._backend, RemoteBackend):
            self.copies.keep(sources, self._backend.scratch_root)
        if not self._backend.stamps_from:
            there = [layout.manifest(m.pipeline, m.stage, m.fingerprint) for m in stand]
            self._read_whole(there, self._backend.stamps(there))  # so that the next look finds it remembered
        return stand

    def find(self, pipeline: str, stage: str, fingerprint: str) -> Manifest | None:
        """The artifact of that name, its bytes verified; None, with a warning, where it is damaged or half-missing."""
        return self.find_many(pipeline, stage, [fingerprint]).get(fingerprint)

    @paused_collection()
    def find_many(self, pipeline: str, stage: str, fingerprints: Iterable[str]) -> dict[str, Manifest]:
        """Those of the artifacts that exist and are whole, by fingerprint. See `find`.

        Raises:
            StoreError: also where a manifest was written by a later version of the platform.
        """
        paths = {layout.manifest(pipeline, stage, each): each for each in dict.fromkeys(fingerprints)}
        looked = len(paths) >= self._backend.stamps_from
        stamps = self._backend.stamps(list(paths)) if looked else {}  # before reading: what changes after that shows
        gists = self._gists(pipeline, stage, stamps)
        blobs = dict.fromkeys(blob for gist in gists.values() for blob, _ in gist.stamps)
        whole = unchanged(gists, self._backend.stamps(list(blobs)))
        whole |= self._read_whole([path for path in (stamps if looked else paths) if path not in whole], stamps)
        return {fingerprint: whole[path] for path, fingerprint in paths.items() if path in whole}

    def _read_whole(self, paths: Sequence[str], stamps: Mapping[str, Stamp]) -> dict[str, Manifest]:
        """Read manifests and verify their files. The others are left out with a warning."""
        found = self._parse_all(paths, "Taken as missing, and will be built again")
        files = {file.sha256: file for manifest in found.values() for file in manifest.files}
        damage, checked = self._check(files.values())
        marks = {sha256: stamp.text for sha256, stamp in checked.items()}
        for path, manifest in list(found.items()):
            if broken := [file for file in manifest.files if file.sha256 in damage]:
                name = "/".join(filter(None, (manifest.pipeline, manifest.stage, manifest.batch, manifest.fingerprint)))
                what = f"{name}, whose file {broken[0].name} {damage[broken[0].sha256]}"
                self._warn(f"Taken as missing, and will be built again: {what}")
                del found[path]
        self._remember_manifests(((found[path], stamps[path].text) for path in found if path in stamps), marks)
        return found

    def _gists(self, pipeline: str, stage: str, stamps: Mapping[str, Stamp]) -> dict[str, Gist]:
        """What is remembered of those manifests of a stage that have these stamps, by path."""
        by_name = {path.rpartition("/")[2].removesuffix(".json"): path for path, stamp in stamps.items() if stamp.text}
        folder = self._backend.place(layout.manifests(pipeline, stage))
        texts = self._verified.manifests(folder, {name: stamps[path].text for name, path in by_name.items()})
        gists = read_gists(texts, pipeline, stage, self._facts)
        return {by_name[name]: gist for name, gist in gists.items()}

    def _remember_manifests(self, found: Iterable[tuple[Manifest, str]], marks: Mapping[str, str]) -> None:
        """Remember whole manifests (each with its stamp), given the stamps of their files by SHA-256."""
        rows: dict[str, list[tuple[str, str, str]]] = {}
        for manifest, stamp in found:
            if stamp and all(marks.get(file.sha256) for file in manifest.files):
                folder = self._backend.place(layout.manifests(manifest.pipeline, manifest.stage))
                rows.setdefault(folder, []).append((manifest.fingerprint, stamp, write_gist(manifest, marks)))
        for folder, some in rows.items():
            self._verified.remember_manifests(folder, some)

    def _facts(self, pipeline: str, stage: str, fingerprint: str, data_version: str) -> Mapping[str, Any]:
        """The facts of a manifest of which only the gist was read; a forced run may have put another in its place."""
        path = layout.manifest(pipeline, stage, fingerprint)
        for each in (path, layout.superseded(pipeline, stage, fingerprint, data_version)):
            for data in self._backend.read_many([each]).values():
                there = Manifest.from_json(data)
                if there.data_version == data_version:
                    return there.facts
        raise DamagedArtifactError(
            "The manifest was removed or changed while it was in use.",
            where=self._backend.place(path),
            fix="run again",
        )

    def path(self, file: ArtifactFile) -> Path:
        """A local path of a file's bytes, verified. Not to be written to.

        Raises:
            DamagedArtifactError: the bytes are missing or not those that were committed.
        """
        return self.paths([file])[0]

    def paths(self, files: Iterable[ArtifactFile]) -> list[Path]:
        """Local paths of many files' bytes, as `path`: checked at once, and fetched several at a time."""
        files = list(files)
        if not isinstance(self._backend, LocalBackend):
            return _parallel(self.copies.path, files)
        damage = self._damage(files)
        for file in files:
            if file.sha256 in damage:
                raise damaged(file, self._backend.place(layout.blob(file.sha256)), damage[file.sha256])
        return [self._backend.root / layout.blob(file.sha256) for file in files]

    def read_bytes(self, file: ArtifactFile) -> bytes:
        """A file's bytes, verified. Raises DamagedArtifactError as `path`."""
        return self.path(file).read_bytes()

    def artifacts(self, pipeline: str, stage: str) -> list[Manifest]:
        """Every manifest of a stage, oldest first, files not verified. Damaged ones are left out with a warning."""
        scanned = self._backend.scan(layout.manifests(pipeline, stage))
        stamps = {path: stamp for path, stamp in scanned.items() if path.endswith(".json")}
        found = {path: gist.manifest for path, gist in self._gists(pipeline, stage, stamps).items()}
        found |= self._parse_all([path for path in stamps if path not in found], "Left out")
        return sorted(found.values(), key=lambda manifest: (manifest.created, manifest.fingerprint))

    def manifests(self, pipeline: str, stage: str, fingerprints: Iterable[str]) -> dict[str, Manifest]:
        """Those manifests of a stage that are there, with their facts, read at once; files not verified."""
        paths = {layout.manifest(pipeline, stage, each): each for each in fingerprints}
        found = self._parse_all(list(paths), "Left out")
        return {paths[path]: manifest for path, manifest in found.items()}

    def records(self, folder: str) -> list[str]:
        """Paths of the small files below a folder that `layout` made, in name order."""
        return sorted(self._backend.scan(folder))

    def read_records(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The bytes of such files, as far as they exist."""
        return self._backend.read_many(list(paths))

    def add_record(self, path: str, data: bytes) -> bool:
        """Keep a small file for good, unless there is one: then return False."""
        return bool(self._backend.create({path: data}))

    def renew(self, manifests: Sequence[Manifest]) -> list[Manifest]:
        """Say that artifacts from history are relied on again, so that they are not taken for garbage, before they
        are published. Returns those that are gone."""
        recently = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=RENEWED_AFTER)).isoformat(timespec="milliseconds")
        old = {layout.manifest(m.pipeline, m.stage, m.fingerprint): m for m in manifests if m.created < recently}
        self._mark_used(list(old))
        there = self._backend.stamps(list(old))
        return [manifest for path, manifest in old.items() if path not in there]

    def _mark_used(self, paths: Sequence[str]) -> None:
        self._backend.renew_many([layout.used(path) for path in paths], b"")

    def is_there(self) -> bool:
        """Whether anything is in it. A new store is empty, and so is the folder where one is not mounted."""
        return self._backend.is_there()

    def probe(self) -> str:
        """Write, read and remove a small file. Returns what the store is, in words. Raises StoreError."""
        path, data = f"{layout.TMP}/{layout.scratch_name()}.probe", os.urandom(16)
        try:
            if not self._backend.create({path: data}) or self._backend.read_many([path]).get(path) != data:
                raise StoreError("The store does not give back what was written.", where=self.url)
            if self._backend.create({path: data}):
                raise StoreError(
                    "The store lets a second writer overwrite the first.",
                    where=self.url,
                    fix="use one that knows conditional writes (If-None-Match)",
                )
        finally:
            self._backend.remove_many([path])
        return self._backend.describe()

    def _publish(self, manifests: Sequence[Manifest], *, replace: bool) -> list[Manifest]:
        paths = [layout.manifest(m.pipeline, m.stage, m.fingerprint) for m in manifests]
        data: dict[str, bytes] = {}
        for path, manifest in zip(paths, manifests, strict=True):
            data.setdefault(path, manifest.to_json().encode())
        made = self._backend.create(data)
        stand = []
        for path, manifest in zip(paths, manifests, strict=True):
            new = path in made
            made.discard(path)  # a second one of that name among these is not the first
            stand.append(manifest if new else self._settle(path, manifest, replace=replace))
        return stand

    def _settle(self, path: str, manifest: Manifest, *, replace: bool) -> Manifest:
        """Which of two artifacts of one fingerprint stands."""
        there = self._backend.read_many([path]).get(path, b"")
        try:
            standing = self._parse(path, there)
        except DamagedArtifactError as error:
            _log.warning("Replaced: %s", error)
        else:
            damage = self._damage(standing.files)
            stands = not damage and (not replace or standing.data_version == manifest.data_version)
            if stands and not self.renew([standing]):
                return standing
            if not damage and not stands:
                names = (standing.pipeline, standing.stage, standing.fingerprint, standing.data_version)
                self._backend.create({layout.superseded(*names): there})
            elif damage:
                _log.warning("Replaced the manifest %s: of its files, %s", path, "; ".join(damage.values()))
        self._backend.replace(path, manifest.to_json().encode())
        return manifest

    def _parse_all(self, paths: Sequence[str], warning: str) -> dict[str, Manifest]:
        result = {}
        for path, data in self._backend.read_many(paths).items():
            try:
                result[path] = self._parse(path, data)
            except DamagedArtifactError as error:
                self._warn(f"{warning}: {error}")
        return result

    def _warn(self, text: str) -> None:
        """Warn once: the same artifact is looked up for each stage that reads it."""
        if text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)

    def _parse(self, path: str, data: bytes) -> Manifest:
        try:
            manifest = Manifest.from_json(data)
        except DamagedArtifactError as error:
            raise DamagedArtifactError(
                "The manifest is damaged.", where=self._backend.place(path), got=error.got, fix="run the stage again"
            ) from error
        if layout.manifest(manifest.pipeline, manifest.stage, manifest.fingerprint) != path:
            raise DamagedArtifactError(
                "The manifest is another artifact's.", where=self._backend.place(path), fix="run the stage again"
            )
        return manifest

    def _damage(self, files: Iterable[ArtifactFile]) -> dict[str, str]:
        """What is wrong with each damaged file, by SHA-256."""
        files = list(files)
        damage = self._check(files)[0]
        if damage:
            time.sleep(ASIDE)
            damage = self._check(file for file in files if file.sha256 in damage)[0]
        return damage

    def _check(self, files: Iterable[ArtifactFile]) -> tuple[dict[str, str], dict[str, Stamp]]:
        """What is wrong with each damaged file, and the stamps of the others, by SHA-256.

        Files that have not changed since they were verified are not read again.
        """
        paths = {layout.blob(file.sha256): file for file in files}
        stamps = self._backend.stamps(list(paths))
        places = {self._backend.place(path): stamp.text for path, stamp in stamps.items() if stamp.text}
        known = self._verified.known(places)
        damage: dict[str, str] = {}
        unsure = []
        for path, file in paths.items():
            if path not in stamps:
                damage[file.sha256] = "is missing"
            elif stamps[path].size != file.size:
                damage[file.sha256] = f"has {stamps[path].size} bytes, not {file.size}"
            elif known.get(self._backend.place(path)) != file.sha256:
                unsure.append(path)
        read = self._backend.digests(unsure)
        for path in unsure:
            if read.get(path) != paths[path].sha256:
                damage[paths[path].sha256] = f"hashes to {read.get(path, 'nothing: it is gone')}"
        self._remember((path, stamps[path], paths[path].sha256) for path in unsure if paths[path].sha256 not in damage)
        return damage, {file.sha256: stamps[path] for path, file in paths.items() if file.sha256 not in damage}

    def _remember(self, rows: Iterable[tuple[str, Stamp, str]]) -> None:
        self._verified.remember((self._backend.place(path), stamp.text, sha) for path, stamp, sha in rows if stamp.text)


def _files(files: Mapping[str, Path], described: Mapping[Path, tuple[str, int]]) -> tuple[ArtifactFile, ...]:
    for name in files:
        layout.check_file_name(name)
    return tuple(
        ArtifactFile(name=name, sha256=described[path][0], size=described[path][1])
        for name, path in sorted(files.items())
    )


def _describe(path: Path) -> tuple[str, int]:
    return sha256(path), path.stat().st_size


def _parallel(work: Callable[[_A], _B], items: Sequence[_A]) -> list[_B]:
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, items))
