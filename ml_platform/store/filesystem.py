"""Folders and fsspec URLs, opened alike, and their errors said in words that tell what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_platform.errors import PlatformError, StoreError

StorageOptions = Mapping[str, Mapping[str, object]]
"""Options for fsspec, by protocol, as in `Settings.storage_options`."""

_EXTRAS = {"s3": "ml-platform[s3]", "s3a": "ml-platform[s3]"}
_ATTEMPTS = 3


def local_folder(url: str) -> Path | None:
    """The folder that a path or a file:// URL names; None for any other URL."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*(?:::.*)?)://", url)
    if match is None:
        return Path(url).expanduser().absolute()
    return Path(url[len(match[0]) :]).absolute() if match[1] in ("file", "local") else None


def open_filesystem(
    url: str, options: StorageOptions | None, error: type[PlatformError] = StoreError
) -> tuple[Any, str]:
    """Open an fsspec URL; returns the file system and the root's path in it. Nothing is contacted yet.

    Raises:
        error: the protocol is unknown, or what it needs is not installed.
    """
    import fsspec

    protocol = url.partition("://")[0]
    if "::" in url:
        raise error("A chained URL cannot be a root.", got=url, fix="name the bucket and folder only")
    given: dict[str, Any] = dict((options or {}).get(protocol, {}))
    try:
        fsspec.get_filesystem_class(protocol)
        if protocol in ("s3", "s3a"):
            # The defaults would keep on trying an endpoint that is not there for minutes.
            config = {"connect_timeout": 5, "retries": {"max_attempts": 1}, **dict(given.get("config_kwargs", {}))}
            given["config_kwargs"] = config
        fs, root = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, "skip_instance_cache": True, **given})
        if protocol in ("s3", "s3a"):
            fs.retries = _ATTEMPTS
    except ImportError as reason:
        package = _EXTRAS.get(protocol, f"the package that fsspec names for {protocol}")
        raise error(
            "A package for this kind of URL is missing.", where=url, got=reason, fix=f"pip install '{package}'"
        ) from reason
    except ValueError as reason:
        raise error(
            "The URL cannot be opened.", where=url, got=reason, fix="a folder, or a URL such as s3://bucket/folder"
        ) from reason
    return fs, str(root).rstrip("/")


def list_folder(fs: Any, folder: str, after: str = "") -> list[dict[str, Any]]:
    """A folder's entries as fsspec describes them. Where the store can begin at a name, only those after `after`."""
    if not after or "s3" not in fs.protocol:
        found: list[dict[str, Any]] = fs.ls(folder, detail=True)
        return found
    bucket, _, prefix = folder.partition("/")
    request = {"Bucket": bucket, "Prefix": f"{prefix}/", "Delimiter": "/", "StartAfter": f"{prefix}/{after}"}
    entries: list[dict[str, Any]] = []
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", ()):
            entries.append({**item, "name": f"{bucket}/{item['Key']}", "size": item["Size"], "type": "file"})
        if not page.get("IsTruncated"):
            return entries
        request["ContinuationToken"] = page["NextContinuationToken"]


def remove_folder(folder: Path) -> None:
    """Remove a folder even where a body has made parts of it read-only."""

    def make_writable(function: Callable[..., Any], path: str, error: Any) -> None:
        if isinstance(error[1], FileNotFoundError):
            return
        os.chmod(os.path.dirname(path), stat.S_IRWXU)
        if not os.path.islink(path):  # never what a link leads to
            os.chmod(path, stat.S_IRWXU)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    shutil.rmtree(folder, onerror=make_writable)


@contextlib.contextmanager
def telling(what: str, where: object, error: type[PlatformError] = StoreError) -> Iterator[None]:
    """Turn what a file system raises into an `error` that says what to do. A PlatformError passes as it is."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as reason:
        raise error(what, where=where, got=f"{type(reason).__name__}: {reason}", fix=_fix(reason)) from reason


def _fix(reason: BaseException) -> str:
    number = getattr(reason, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or name a place with more"
    if number == errno.EFBIG:
        return "the limit on a file's size was reached: raise it (ulimit -f), or free some space"
    if number == errno.EROFS:
        return "the file system is mounted read-only: name another place"
    if isinstance(reason, PermissionError):
        return "allow this user or these credentials to read and write there"
    if isinstance(reason, FileNotFoundError | NotADirectoryError):
        return "check that the bucket or folder exists and is spelt so"
    name = type(reason).__name__
    if "Credential" in name or "Token" in name:
        return "give credentials, in the environment or in ML_PLATFORM_STORAGE_OPTIONS"
    if isinstance(reason, ConnectionError | TimeoutError) or re.search("Connect|Timeout|Endpoint", name):
        return "check that the endpoint is up and reached from here; run it again when it is"
    return "see the reason above; `ml-platform doctor` checks the landing place and the store"
