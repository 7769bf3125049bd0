"""The landing place: where data arrives, and how a file is taken from it whole or not at all.

A source's batch lands at `<landing>/<pipeline>/<source>/<batch>.<format>`, a reference table at
`<landing>/<pipeline>/references/<name>.<format>`; the landing place is a folder or an fsspec URL. Whoever writes there
should write under a name that is ignored (beginning with a dot, ending in .tmp or .part) and rename; for those who do
not, a file is taken only after it has kept still for a while.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ml_platform.errors import LandingError
from ml_platform.pipeline import NamedBatches, Pipeline
from ml_platform.store.filesystem import StorageOptions, local_folder, open_filesystem, telling

if TYPE_CHECKING:
    import pyarrow as pa

REFERENCES = "references"
"""The folder of reference tables."""

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_IGNORED = (".tmp", ".part")
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})
"""Protocols under which an object appears whole or not at all."""


@dataclass(frozen=True)
class LandedFile:
    """A file as it was listed. `version` changes with its bytes; `modified` is in seconds since 1970."""

    url: str
    size: int
    version: str
    modified: float


@dataclass(frozen=True)
class RefusedFile:
    """A file that is there and will not be taken."""

    url: str
    reason: str


class LandedFiles(dict[str, LandedFile]):
    """What has landed of a feed, by batch (by name for references), and what was refused."""

    def __init__(self, files: dict[str, LandedFile], refused: tuple[RefusedFile, ...]) -> None:
        super().__init__(sorted(files.items()))
        self.refused = refused


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

    def files(self, pipeline: Pipeline | str, feed: str, format_: str) -> LandedFiles:
        """List a feed in one go: files by batch name, or by reference name where `feed` is "references".

        Names that the pipeline does not accept are in `.refused` and logged. Dot-files, *.tmp and *.part are ignored.
        """
        files, refused = {}, []
        for name, listed in self._list(f"{_name(pipeline)}/{feed}"):
            if name.startswith(".") or name.endswith(_IGNORED):
                continue
            stem, _, suffix = name.rpartition(".")
            reason = listed if isinstance(listed, str) else _refusal(pipeline, feed, stem, suffix, format_)
            if reason is None and isinstance(listed, LandedFile):
                files[stem] = listed
            elif reason:
                refused.append(RefusedFile(f"{self.url}/{_name(pipeline)}/{feed}/{name}", reason))
        for each in refused:
            _log.warning("Refused the landed file %r: %s", each.url, each.reason)
        return LandedFiles(files, tuple(refused))

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
        if reason := _refusal(pipeline, feed, name, format_, format_):
            raise LandingError(
                "It cannot land under this name.", where=f"{_name(pipeline)}/{feed}", got=repr(name), fix=reason
            )
        write = _writer(data, format_)
        path = f"{_name(pipeline)}/{feed}/{name}.{format_}"
        with telling("The landing place cannot be written.", f"{self.url}/{path}", LandingError):
            return self._put_local(path, write) if self._root else self._put_remote(path, write)

    # Local and remote

    def _list(self, folder: str) -> Iterator[tuple[str, LandedFile | str]]:
        """Yield each file's name and what it is, or why it is refused."""
        with telling("The landing place cannot be listed.", f"{self.url}/{folder}", LandingError):
            if self._root is None:
                fs, root = self._fs
                try:
                    listed = fs.ls(f"{root}/{folder}", detail=True)
                except FileNotFoundError:
                    bucket = root.partition("/")[0]
                    if bucket and not fs.exists(bucket):
                        raise
                    return
                for info in listed:
                    name = str(info["name"]).rpartition("/")[2]
                    if info["type"] == "file" and name:
                        yield name, _landed(f"{self.url}/{folder}/{name}", info)
                return
            try:
                entries = os.scandir(self._root / folder)
            except FileNotFoundError:
                return
            if not self._inside(self._root / folder):
                raise LandingError("The folder is a link out of the landing place.", where=self._root / folder)
            with entries:
                for entry in entries:
                    if entry.is_symlink() and not self._inside(Path(entry.path)):
                        yield entry.name, "a link that leaves the landing place"
                    elif entry.is_file():
                        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                            yield entry.name, _local(Path(entry.path))

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
                return _local(path)
            with telling("The landing place cannot be read.", file.url, LandingError):
                fs, root = self._fs
                return _landed(file.url, fs.info(f"{root}/{file.url[len(self.url) + 1 :]}"))
        except (FileNotFoundError, LandingError) as error:
            if isinstance(error.__cause__ or error, FileNotFoundError):
                raise LandingError("The landed file has vanished.", where=file.url, fix="land it again") from error
            raise

    def _settle(self, file: LandedFile) -> None:
        """Wait until the file has kept still. After the first of many that landed together, the others need no wait."""
        now = self._check_same(file, "since it was listed")
        if self._root is None and self.url.partition("://")[0] in _WHOLE:
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
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return str(target)

    def _put_remote(self, path: str, write: Callable[[IO[bytes]], None]) -> str:
        fs, root = self._fs
        folder, _, name = f"{root}/{path}".rpartition("/")
        whole = self.url.partition("://")[0] in _WHOLE
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
    def _fs(self) -> tuple[Any, str]:
        if self._opened is None or self._opened[0] != os.getpid():  # a forked process needs connections of its own
            self._opened = (os.getpid(), *open_filesystem(self.url, self._options, LandingError))
        return self._opened[1], self._opened[2]


def _name(pipeline: Pipeline | str) -> str:
    return pipeline if isinstance(pipeline, str) else pipeline.name


def _refusal(pipeline: Pipeline | str, feed: str, name: str, suffix: str, format_: str) -> str | None:
    """Why a file of this name is not taken; "" when it is none of this listing's business, None when it is taken."""
    safe = NamedBatches()
    if not safe.accepts(_name(pipeline)) or not safe.accepts(feed):
        return "the names of the pipeline and of the source must not leave the folder"
    if not safe.accepts(name):
        return f"a name is {safe.describe()}"
    if isinstance(pipeline, Pipeline):
        if feed == REFERENCES:
            declared = {reference.name: reference.format for reference in pipeline.references}
            if name not in declared:
                return f"the pipeline's references are {', '.join(declared) or 'none'}"
            if suffix == declared[name] != format_:
                return ""
        elif feed not in {source.name for source in pipeline.sources}:
            return f"the pipeline's sources are {', '.join(source.name for source in pipeline.sources)}"
        elif not pipeline.batches.accepts(name):
            return f"a batch is {pipeline.batches.describe()}"
    return None if suffix == format_ else f"the feed is declared as {format_}: the name must end in .{format_}"


def _local(path: Path) -> LandedFile:
    stat = path.stat()
    return LandedFile(str(path), stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", stat.st_mtime)


def _landed(url: str, info: dict[str, Any]) -> LandedFile:
    marks = [str(info[key]) for key in ("ETag", "etag", "generation", "md5Hash") if info.get(key)]
    times = [info[key] for key in ("LastModified", "last_modified", "mtime", "updated", "created") if info.get(key)]
    modified = times[0].timestamp() if times and isinstance(times[0], dt.datetime) else 0.0
    return LandedFile(url, int(info["size"]), marks[0] if marks else str(times[0]) if times else "", modified)


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
