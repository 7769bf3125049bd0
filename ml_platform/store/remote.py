"""A store behind an fsspec URL (s3://, gs://, ...): an object appears whole or not at all.

Objects are written with one PUT, or a multipart upload that becomes visible at its end. Manifests are created with
If-None-Match where the file system knows it (s3fs does), so that the first of two writers wins.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ml_platform.store.backend import BLOCK, Stamp
from ml_platform.store.filesystem import StorageOptions, open_filesystem, telling

_A = TypeVar("_A")
_B = TypeVar("_B")
_THREADS = 16
_PAGE = 1000  # what a listing gives in one request
_FOLDERS = 256
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")
_STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "last_modified", "LastModified", "created")


class RemoteBackend:
    """See `Backend`. Nothing is contacted, nor fsspec imported, before the first use."""

    stamps_from = 64

    def __init__(self, url: str, options: StorageOptions | None, scratch_root: Path) -> None:
        self.url = url.rstrip("/")
        self.scratch_root = scratch_root
        self._options = options
        self._opened: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # a connection does not travel

    def is_there(self) -> bool:
        with telling("The store cannot be read.", self.url):
            try:
                return bool(self._fs.ls(self._root, detail=False))
            except FileNotFoundError:
                return False

    def place(self, path: str) -> str:
        return f"{self.url}/{path}"

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        def read(path: str) -> bytes | None:
            try:
                data: bytes = fs.cat_file(self._at(path))
            except FileNotFoundError:
                return None
            return data

        with telling("The store cannot be read.", self.url):
            fs = self._fs
            return {path: data for path, data in _each(read, paths) if data is not None}

    def stamps(self, paths: Sequence[str]) -> dict[str, Stamp]:
        """One request a path, or a listing of the folders where that takes fewer."""

        def look(path: str) -> Stamp | None:
            try:
                return _stamp(fs.info(self._at(path)))
            except FileNotFoundError:
                return None

        with telling("The store cannot be read.", self.url):
            fs = self._fs
            if len(paths) >= self.stamps_from and (folders := self._worth_listing(paths)):
                listed: dict[str, Stamp] = {}
                for _, found in _each(self.scan, folders):
                    listed.update(found)
                return {path: listed[path] for path in paths if path in listed}
            return {path: stamp for path, stamp in _each(look, paths) if stamp is not None}

    def _worth_listing(self, paths: Sequence[str]) -> list[str]:
        """The folders to list to find all paths in less time than by a request each; none if that is the quickest.

        Paths are `.../<2 hex>/<name>`, spread evenly: from what one such folder holds follows what all hold. Times are
        counted in rounds of requests, of which `_THREADS` go at once.
        """
        folders = sorted({path.rpartition("/")[0] for path in paths})
        above = sorted({folder.rpartition("/")[0] for folder in folders})
        in_one = len(self.scan(folders[0]))
        pages = len(folders) * (1 + in_one // _PAGE) / _THREADS
        pages_above = len(above) * (1 + _FOLDERS * in_one // _PAGE)  # the pages of one listing follow each other
        if len(paths) / _THREADS <= min(pages, pages_above):
            return []
        return above if pages_above <= pages else folders

    def digests(self, paths: Sequence[str]) -> dict[str, str]:
        def read(path: str) -> str | None:
            digest = hashlib.sha256()
            try:
                with fs.open(self._at(path), "rb", block_size=8 * BLOCK, cache_type="readahead") as file:
                    while block := file.read(BLOCK):
                        digest.update(block)
            except FileNotFoundError:
                return None
            return digest.hexdigest()

        with telling("The store cannot be read.", self.url):
            fs = self._fs
            return {path: value for path, value in _each(read, paths) if value is not None}

    def put_many(self, sources: Mapping[str, Path]) -> None:
        with telling("The store cannot be written.", self.url):
            fs = self._fs
            _each(lambda path: fs.put_file(str(sources[path]), self._at(path)), list(sources))

    def create(self, files: Mapping[str, bytes]) -> set[str]:
        assert self._fs is not None  # opened before there are threads
        return {path for path, made in _each(lambda path: self._create(path, files[path]), list(files)) if made}

    def _create(self, path: str, data: bytes) -> bool:
        with telling("The store cannot be written.", self.url):
            try:
                self._fs.pipe_file(self._at(path), data, mode="create")
            except FileExistsError:
                return False
            except (OSError, NotImplementedError) as error:
                # s3fs reports a failed precondition as EINVAL, a service without conditional writes as ENOSYS.
                known = isinstance(error, NotImplementedError) or error.errno in (
                    errno.EINVAL,
                    errno.ENOSYS,
                    errno.EBUSY,
                )
                if not known:
                    raise
                if self._fs.exists(self._at(path)):
                    return False
                if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                    raise
                self._fs.pipe_file(self._at(path), data)
            return True

    def replace(self, path: str, data: bytes) -> None:
        with telling("The store cannot be written.", self.url):
            self._fs.pipe_file(self._at(path), data)

    def scan(self, folder: str) -> dict[str, Stamp]:
        with telling("The store cannot be read.", self.url):
            root = self._root
            try:
                found = self._fs.find(self._at(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {str(path)[len(root) + 1 :]: _stamp(info) for path, info in found.items()}

    def claim(self, paths: Sequence[str], data: bytes) -> set[str]:
        return self.create(dict.fromkeys(paths, data))

    def renew_many(self, paths: Sequence[str], data: bytes) -> None:
        _each(lambda path: self.replace(path, data), paths)

    def fetch(self, path: str, to: Path) -> None:
        with telling("The store cannot be read.", self.url):
            self._fs.get_file(self._at(path), str(to))

    def remove_many(self, paths: Sequence[str]) -> None:
        def remove(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(self._at(path))

        with telling("The store cannot be written.", self.url):
            fs = self._fs
            _each(remove, paths)

    def remove_unless(self, paths: Sequence[str], wanted: Callable[[Sequence[str]], Set[str]]) -> set[str]:
        removed: set[str] = set()
        for start in range(0, len(paths), _THREADS):
            some = paths[start : start + _THREADS]
            unwanted = set(some) - wanted(some)
            self.remove_many(list(unwanted))
            removed |= unwanted
        return removed

    def describe(self) -> str:
        return f"{self.url} through {type(self._fs).__name__}"

    @property
    def _fs(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():  # a forked process needs connections of its own
            self._opened = (os.getpid(), *open_filesystem(self.url, self._options))
        return self._opened[1]

    @property
    def _root(self) -> str:
        assert self._fs is not None
        assert self._opened is not None
        return self._opened[2]

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def _stamp(info: Mapping[str, Any]) -> Stamp:
    mark = next((str(info[key]) for key in _STAMPS if info.get(key)), "")
    when = next((info[key] for key in _TIMES if info.get(key)), 0.0)
    if isinstance(when, str):
        when = dt.datetime.fromisoformat(when)
    modified = when.timestamp() if isinstance(when, dt.datetime) else float(when)
    return Stamp(int(info["size"]), f"{info['size']}:{mark}" if mark else "", modified)


def _each(work: Callable[[_A], _B], items: Sequence[_A]) -> list[tuple[_A, _B]]:
    if len(items) < 2:
        return [(item, work(item)) for item in items]
    with ThreadPoolExecutor(min(_THREADS, len(items))) as pool:
        return list(zip(items, pool.map(work, items), strict=True))
