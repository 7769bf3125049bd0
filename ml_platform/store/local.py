"""A store in a local folder: write, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ml_platform.files import flush, sha256
from ml_platform.store import layout
from ml_platform.store.backend import Stamp
from ml_platform.store.filesystem import telling

_A = TypeVar("_A")
_B = TypeVar("_B")
_THREADS = 16  # they wait for the disk, which flushes for several at once
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}


class LocalBackend:
    """See `Backend`. `root` need not exist yet."""

    stamps_from = 0

    def __init__(self, root: Path) -> None:
        self.root = root
        self._base = f"{root}/"
        self.scratch_root = root / layout.TMP
        self._made: set[Path] = set()

    def is_there(self) -> bool:
        with telling("The store cannot be read.", self.root):
            try:
                return any(True for _ in self.root.iterdir())
            except FileNotFoundError:
                return False

    def place(self, path: str) -> str:
        return self._base + path

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        result = {}
        with telling("The store cannot be read.", self.root):
            for path in paths:
                with contextlib.suppress(FileNotFoundError), open(self._base + path, "rb") as file:
                    result[path] = file.read()
        return result

    def stamps(self, paths: Sequence[str]) -> dict[str, Stamp]:
        result: dict[str, Stamp] = {}
        with telling("The store cannot be read.", self.root):
            try:
                root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                return result
            try:
                # In name order and from the root on: of ten thousands, finding the folders takes most of the time.
                for path in sorted(paths):
                    try:
                        result[path] = _stamp(os.stat(path, dir_fd=root))
                    except FileNotFoundError:
                        continue
            finally:
                os.close(root)
        return result

    def digests(self, paths: Sequence[str]) -> dict[str, str]:
        def read(path: str) -> str | None:
            try:
                return sha256(self.root / path)
            except FileNotFoundError:
                return None

        with telling("The store cannot be read.", self.root):
            found = zip(paths, _each(read, paths), strict=True)
            return {path: value for path, value in found if value is not None}

    def put_many(self, sources: Mapping[str, Path]) -> None:
        changed: set[Path] = set()

        def put(item: tuple[str, Path]) -> None:
            path, source = item
            target = self.root / path
            with self._temporary() as temporary:
                if source.is_relative_to(self.scratch_root) and not source.is_symlink():
                    temporary = source
                else:
                    shutil.copyfile(source, temporary)
                _seal(temporary)
                self._folder(target.parent, changed)
                os.replace(temporary, target)

        with telling("The store cannot be written.", self.root):
            self._folder(self.scratch_root, changed)
            _each(put, list(sources.items()))
            _each(flush, list(changed))

    def create(self, files: Mapping[str, bytes]) -> set[str]:
        changed: set[Path] = set()

        def create(path: str) -> bool:
            with self._written(files[path], changed) as temporary:
                target = self.root / path
                self._folder(target.parent, changed)
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    # No hard links on this file system. A second writer at the same instant would win over the first:
                    # both are whole and stand for the same fingerprint.
                    if target.exists():
                        return False
                    os.replace(temporary, target)
                return True

        with telling("The store cannot be written.", self.root):
            made = {path for path, new in zip(files, _each(create, list(files)), strict=True) if new}
            _each(flush, list(changed))
            return made

    def replace(self, path: str, data: bytes) -> None:
        changed: set[Path] = set()
        with telling("The store cannot be written.", self.root), self._written(data, changed) as temporary:
            target = self.root / path
            self._folder(target.parent, changed)
            os.replace(temporary, target)
            _each(flush, list(changed))

    def scan(self, folder: str) -> dict[str, Stamp]:
        result: dict[str, Stamp] = {}
        folders = [folder]
        with telling("The store cannot be read.", self.root):
            while folders:
                base = folders.pop()
                # What vanishes meanwhile is not there.
                with contextlib.suppress(FileNotFoundError), os.scandir(self._base + base) as entries:
                    for entry in entries:
                        path = f"{base}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path)
                        else:
                            with contextlib.suppress(FileNotFoundError):
                                result[path] = _stamp(entry.stat())
        return result

    def claim(self, paths: Sequence[str], data: bytes) -> set[str]:
        made = set()
        with telling("The store cannot be written.", self.root), self._temporary() as temporary:
            self._folder(self.scratch_root, set())
            temporary.write_bytes(data)
            for folder in {(self.root / path).parent for path in paths}:
                folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                with contextlib.suppress(FileExistsError):
                    try:
                        os.link(temporary, self._base + path)
                    except OSError as error:
                        if error.errno not in _NO_LINKS:
                            raise
                        with open(self._base + path, "xb") as file:
                            file.write(data)
                    made.add(path)
        return made

    def renew_many(self, paths: Sequence[str], data: bytes) -> None:
        with telling("The store cannot be written.", self.root):
            for path in paths:
                with self._temporary() as temporary:
                    self._folder(self.scratch_root, set())
                    temporary.write_bytes(data)
                    target = self.root / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(temporary, target)

    def fetch(self, path: str, to: Path) -> None:
        with telling("The store cannot be read.", self.root):
            shutil.copyfile(self.root / path, to)

    def remove_many(self, paths: Sequence[str]) -> None:
        with telling("The store cannot be written.", self.root):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._base + path)

    def remove_unless(self, paths: Sequence[str], wanted: Callable[[Sequence[str]], Set[str]]) -> set[str]:
        # Out of sight first, then asked, then removed or put back: who relies on a file says so before looking for it,
        # so either is seen here, or finds it gone. Asked before too: what somebody relies on stays in sight.
        removed = set()
        with telling("The store cannot be written.", self.root):
            self._folder(self.scratch_root, set())
            for path in paths:
                if path in wanted([path]):
                    continue
                with self._temporary() as aside, contextlib.suppress(FileNotFoundError):
                    os.rename(self._base + path, aside)
                    if path not in wanted([path]):
                        removed.add(path)
                    elif not os.path.exists(self._base + path):
                        os.rename(aside, self._base + path)
        return removed

    def describe(self) -> str:
        with telling("The store cannot be read.", self.root):
            return f"folder {self.root}, {shutil.disk_usage(self.root).free / 2**30:.1f} GiB free"

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        path = self.scratch_root / f"{layout.scratch_name()}.{secrets.token_hex(2)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written(self, data: bytes, changed: set[Path]) -> Iterator[Path]:
        self._folder(self.scratch_root, changed)
        with self._temporary() as path:
            path.write_bytes(data)
            _seal(path)
            yield path

    def _folder(self, folder: Path, changed: set[Path]) -> None:
        """Make a folder and those above it. What must be flushed, so that a file in it is durable, joins `changed`."""
        if folder != self.scratch_root:
            changed.add(folder)
        if folder in self._made and folder.is_dir():
            return
        missing = []
        above = folder
        while not above.is_dir():
            missing.append(above)
            above = above.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            changed.add(each.parent)
        self._made.add(folder)


def local_stamp(path: Path | str) -> Stamp:
    """The stamp of a local file. Raises FileNotFoundError."""
    return _stamp(os.stat(path))


def _stamp(stat: os.stat_result) -> Stamp:
    text = f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"
    return Stamp(stat.st_size, text, stat.st_mtime)


def _seal(path: Path) -> None:
    """Make a file's bytes durable and read-only, and date it back a little.

    The clock behind modification times ticks in milliseconds. A later write would go unseen if it fell into the tick
    in which the file was made and verified; dated back, any write shows.
    """
    flush(path)
    then = time.time_ns() - 2_000_000_000
    os.utime(path, ns=(then, then))
    path.chmod(0o444)


def _each(work: Callable[[_A], _B], items: Sequence[_A]) -> list[_B]:
    if len(items) < 2:
        return [work(item) for item in items]
    return list(_pool(os.getpid()).map(work, items))


@functools.lru_cache(maxsize=1)
def _pool(_pid: int) -> ThreadPoolExecutor:
    """The threads of this process, kept: to start some for each commit takes longer than the flushing."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
