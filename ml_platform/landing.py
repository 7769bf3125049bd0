"""The landing place: where data arrives, and how a file is taken from it whole or not at all.

A source's batch lands at `<landing>/<pipeline>/<source>/<batch>.<format>`, a reference table at
`<landing>/<pipeline>/references/<name>.<format>`; the landing place is a folder or an fsspec URL. Whoever writes there
should write under a name that is ignored (beginning with a dot, ending in .tmp or .part) and rename; for those who do
not, a file is taken only after it has kept still for a while, or when a marker or a checksum beside it says so, as the
source declares (see `feeds.Source.complete`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ml_platform.errors import LandingError
from ml_platform.files import flush
from ml_platform.landed import (
    REFERENCES,
    SUFFIXES,
    LandedFile,
    LandedFiles,
    RefusedFile,
    declared_complete,
    local_file,
    name_of,
    refusal,
    remote_file,
    vouched,
)
from ml_platform.store.filesystem import StorageOptions, list_folder, local_folder, open_filesystem, telling

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.pipeline import Pipeline

__all__ = ["REFERENCES", "LandedFile", "LandedFiles", "Landing", "RefusedFile"]

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_IGNORED = (".tmp", ".part")
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})
"""Protocols under which an object appears whole or not at all."""


class Landing:
    """A folder, or anything that fsspec opens, in which data lands.

    Args:
        url: a folder or an fsspec URL.
        storage_options: options for fsspec by protocol, as in `Settings.storage_options`.
        settle_seconds: how long a file must have kept still. Object stores show whole objects only, so do not wait.

    Every method raises LandingError, also where the place is unreachable.
    """

    def __init__(
        self, url: str | Path, *, storage_options: StorageOptions | None = None, settle_seconds: float = 2.0
    ) -> None:
        self.url, self.settle_seconds = str(url).rstrip("/") or "/", settle_seconds
        self._options = storage_options
        self._root = local_folder(str(url))
        self._opened: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def files(
        self, pipeline: Pipeline | str, feed: str, format_: str, *, after: str = "", tell: bool = True
    ) -> LandedFiles:
        """List a feed in one go: files by batch name, or by reference name where `feed` is "references".

        Names that the pipeline does not accept are in `.refused` and, if `tell`, logged. Dot-files, *.tmp and *.part
        are ignored, and so is, of a pipeline that is given whole, what is not complete as the source declares.

        Args:
            pipeline: the pipeline, or its name.
            feed: a source's name, or "references".
            format_: "parquet" or "csv".
            after: only names after this one; a store that can begin there lists no others.
            tell: log what is refused.
        """
        files, refused, beside = {}, [], {}
        complete = declared_complete(pipeline, feed)
        for name, listed in self._list(f"{name_of(pipeline)}/{feed}", after):
            if name.startswith(".") or name.endswith(_IGNORED):
                continue
            if complete in SUFFIXES and name.endswith(SUFFIXES[complete]):
                beside[name.removesuffix(SUFFIXES[complete])] = listed
                continue
            stem, _, suffix = name.rpartition(".")
            reason = listed if isinstance(listed, str) else refusal(pipeline, feed, stem, suffix, format_)
            if reason is None and isinstance(listed, LandedFile):
                files[stem] = listed
            elif reason:
                refused.append(RefusedFile(f"{self.url}/{name_of(pipeline)}/{feed}/{name}", reason))
        for each in refused if tell else ():
            _log.warning("Refused the landed file %r: %s", each.url, each.reason)
        if complete in SUFFIXES:
            files = {stem: full for stem, file in files.items() if (full := vouched(file, beside, complete))}
        return LandedFiles({stem: file for stem, file in files.items() if stem > after}, tuple(refused))

    def snapshot(self, file: LandedFile, to: Path) -> str:
        """Copy a listed file's bytes, once it has kept still for `settle_seconds`. Returns their SHA-256.

        Raises:
            LandingError: it has vanished, is empty, is a link out of the landing place, or changed since it was listed
                or while it was copied (it is still being written). Nothing is left at `to`.
        """
        self._settle(file)
        if file.size == 0:
            raise LandingError("The landed file is empty.", where=file.url, got="0 bytes", fix="land it again")
        digest, copied = hashlib.sha256(), 0
        try:
            with (
                telling("The landed file cannot be copied.", file.url, LandingError),
                self._open(file) as source,
                to.open("wb") as target,
            ):
                while block := source.read(_BLOCK):
                    digest.update(block)
                    copied += len(block)
                    target.write(block)
            self._check_same(file, "while it was copied")
            if copied != file.size:
                raise LandingError(
                    "The landed file changed while it was copied.",
                    where=file.url,
                    got=f"{copied} bytes, {file.size} were listed",
                    fix="run again when it is complete",
                    passing=True,
                )
            self._check_promise(file, digest.hexdigest())
        except BaseException:
            to.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def put(self, pipeline: Pipeline | str, feed: str, name: str, data: Path | bytes | pa.Table, format_: str) -> str:
        """Land a file, in place of an earlier one of that name, so that nobody ever sees a part of it.

        Args:
            pipeline: the pipeline; when it is given whole, its declared feeds and batch names are enforced.
            feed: a source's name, or "references".
            name: the batch, or the reference's name.
            data: a file, its bytes, or a table to encode.
            format_: "parquet" or "csv".

        Returns:
            Where it landed.

        Raises:
            LandingError: the name is not accepted, or the data are empty or unreadable; nothing was touched.
        """
        if reason := refusal(pipeline, feed, name, format_, format_):
            raise LandingError(
                "It cannot land under this name.", where=f"{name_of(pipeline)}/{feed}", got=repr(name), fix=reason
            )
        write = _writer(data, format_)
        path = f"{name_of(pipeline)}/{feed}/{name}.{format_}"
        put = self._put_local if self._root else self._put_remote
        with telling("The landing place cannot be written.", f"{self.url}/{path}", LandingError):
            url = put(path, write)
            if suffix := SUFFIXES.get(declared_complete(pipeline, feed)):
                with self._open(LandedFile(url, 0, "", 0.0)) as landed:
                    line = f"{hashlib.file_digest(cast(Any, landed), 'sha256').hexdigest()}  {name}.{format_}\n"
                put(path + suffix, lambda file: _copy(line.encode(), file))
        return url

    # Local and remote

    def _list(self, folder: str, after: str = "") -> Iterator[tuple[str, LandedFile | str]]:
        """Yield each file's name and what it is, or why it is refused; at least those whose name is after `after`."""
        with telling("The landing place cannot be listed.", f"{self.url}/{folder}", LandingError):
            if self._root is None:
                fs, root = self._fs
                try:
                    listed = list_folder(fs, f"{root}/{folder}", after)
                except FileNotFoundError:
                    bucket = root.partition("/")[0]
                    if bucket and not fs.exists(bucket):
                        raise
                    return
                for info in listed:
                    name = str(info["name"]).rpartition("/")[2]
                    if info["type"] == "file" and name:
                        yield name, remote_file(f"{self.url}/{folder}/{name}", info)
                return
            try:
                entries = os.scandir(self._root / folder)
            except FileNotFoundError:
                return
            if not self._inside(self._root / folder):
                raise LandingError("The folder is a link out of the landing place.", where=self._root / folder)
            with entries:
                for entry in entries:
                    if entry.name < after:
                        continue
                    if entry.is_symlink() and not self._inside(Path(entry.path)):
                        yield entry.name, "a link that leaves the landing place"
                    elif entry.is_file():
                        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                            yield entry.name, local_file(entry.path, entry.stat())

    def _look(self, file: LandedFile) -> LandedFile:
        """The file as it is now."""
        try:
            if self._root is not None:
                path = Path(file.url)
                if not self._inside(path):
                    raise LandingError(
                        "The landed file is a link out of the landing place.",
                        where=path,
                        got=path.resolve(),
                        fix="copy the file there instead",
                    )
                return local_file(path)
            with telling("The landing place cannot be read.", file.url, LandingError):
                fs, root = self._fs
                return remote_file(file.url, fs.info(f"{root}/{file.url[len(self.url) + 1 :]}"))
        except (FileNotFoundError, LandingError) as error:
            if isinstance(error.__cause__ or error, FileNotFoundError):
                raise LandingError("The landed file has vanished.", where=file.url, fix="land it again") from error
            raise

    def _settle(self, file: LandedFile) -> None:
        """Wait until the file has kept still. After the first of many that landed together, the others need no wait."""
        now = self._check_same(file, "since it was listed")
        if self.whole:
            return
        wait = min(self.settle_seconds, now.modified + self.settle_seconds - time.time())
        if wait > 0:
            time.sleep(wait)
            self._check_same(file, f"within {self.settle_seconds:g} s")

    def _check_same(self, file: LandedFile, when: str) -> LandedFile:
        now = self._look(file)
        if (now.size, now.version) != (file.size, file.version):
            raise LandingError(
                f"The landed file changed {when}: it is still being written.",
                where=file.url,
                got=f"{now.size} bytes, {file.size} before",
                fix="run again when it is complete; best written under another name (.tmp) and renamed",
                passing=True,
            )
        return now

    def _check_promise(self, file: LandedFile, digest: str) -> None:
        """Check a file's SHA-256 against the one that stands beside it."""
        if file.checksum is None:
            return
        with (
            telling("The landed checksum cannot be read.", file.checksum.url, LandingError),
            self._open(file.checksum) as opened,
        ):
            promised = opened.read(_BLOCK).decode("utf-8", "replace").split()
        if not promised or promised[0].lower() != digest:
            raise LandingError(
                "The landed file is not the one that its checksum was made of.",
                where=file.url,
                got=f"SHA-256 {digest}; {file.checksum.url} says {(promised or ['nothing'])[0]}",
                fix="land the file and its checksum again",
                passing=True,
            )

    @contextlib.contextmanager
    def _open(self, file: LandedFile) -> Iterator[IO[bytes]]:
        if self._root is not None:
            with Path(file.url).open("rb") as opened:
                yield opened
        else:
            fs, root = self._fs
            with fs.open(f"{root}/{file.url[len(self.url) + 1 :]}", "rb", cache_type="readahead") as opened:
                yield opened

    def _put_local(self, path: str, write: Callable[[IO[bytes]], None]) -> str:
        assert self._root is not None
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        flush(target.parent)
        return str(target)

    def _put_remote(self, path: str, write: Callable[[IO[bytes]], None]) -> str:
        fs, root = self._fs
        folder, _, name = f"{root}/{path}".rpartition("/")
        whole = self.whole
        if not whole:
            fs.makedirs(folder, exist_ok=True)
        under = f"{folder}/{name}" if whole else f"{folder}/.{name}.{secrets.token_hex(4)}.tmp"
        with tempfile.NamedTemporaryFile() as file:  # a remote file that fails half-way might be closed, and so appear
            write(file)
            file.flush()
            fs.put_file(file.name, under)
        if not whole:
            fs.mv(under, f"{folder}/{name}")
        return f"{self.url}/{path}"

    def _inside(self, path: Path) -> bool:
        assert self._root is not None
        return path.resolve().is_relative_to(self._root.resolve())

    @property
    def whole(self) -> bool:
        """Whether a file appears here whole or not at all."""
        return self._root is None and self.url.partition("://")[0] in _WHOLE

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self._root is not None

    @property
    def _fs(self) -> tuple[Any, str]:
        if self._opened is None or self._opened[0] != os.getpid():  # a forked process needs connections of its own
            self._opened = (os.getpid(), *open_filesystem(self.url, self._options, LandingError))
        return self._opened[1], self._opened[2]


def _writer(data: Path | bytes | pa.Table, format_: str) -> Callable[[IO[bytes]], None]:
    """Check that the data can be read, and return what writes them."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    where = data if isinstance(data, Path) else f"{type(data).__name__} of {len(data)}"
    if isinstance(data, pa.Table):
        if not data.num_columns:
            raise LandingError("A table without columns cannot land.")
        table = data

        def encode(file: IO[bytes]) -> None:
            try:
                if format_ == "csv":
                    pyarrow.csv.write_csv(table, file)
                else:
                    pq.write_table(table, file, compression="zstd")
            except pa.ArrowException as error:
                raise LandingError(f"The table cannot be written as {format_}.", got=error, fix="cast it") from error

        return encode
    fix = f"write it again, as {format_}; nothing was landed"
    with telling("There is no such file.", where, LandingError):
        size = data.stat().st_size if isinstance(data, Path) else len(data)
    if size == 0:
        raise LandingError("The file is empty.", where=where, got="0 bytes", fix=fix)
    try:
        source = str(data) if isinstance(data, Path) else pa.BufferReader(data)
        if format_ == "csv":
            pyarrow.csv.open_csv(source).close()
        else:
            pq.ParquetFile(source).close()
    except (pa.ArrowException, OSError) as error:
        raise LandingError(f"Not a readable {format_} file.", where=where, got=error, fix=fix) from error
    return lambda file: _copy(data, file)


def _copy(data: Path | bytes, file: IO[bytes]) -> None:
    if isinstance(data, bytes):
        file.write(data)
        return
    with data.open("rb") as source:
        while block := source.read(_BLOCK):
            file.write(block)
