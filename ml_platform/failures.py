"""Why something failed: for a reason that passes, so that it is tried again, or because of the data or the code."""

from __future__ import annotations

import errno
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from typing import Literal

from ml_platform.errors import LandingError, PlatformError, RegistryError, StoreError

FAILURE_TAG = "ml_platform/failure"
"""The tag of a failed run that holds its `Failure`, or `STOPPED`. A run that died has none, and counts as passing."""
STOPPED = "stopped"
"""What the tag holds where a person ended the run with Ctrl-C."""

Failure = Literal["passing", "permanent"]

_LASTING_ERRNO = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTEMPTY}
    | {errno.EACCES, errno.EPERM}
)
"""A wrong path or a missing right stays wrong. What else an operating system refuses (no space, no connection, too
many open files, a disk that does not answer) may be granted later."""
_PASSING_NAME = re.compile(
    "Connect|Timeout|TimedOut|Unavailable|Throttl|SlowDown|Endpoint|IncompleteRead|Py4JNetwork|TooManyRequests"
)
_PASSING_TEXT = re.compile("java.lang.OutOfMemoryError|CUDA out of memory|database is locked|Connection refused")
_STATUS = re.compile(r"\b(429|5\d\d)\b")


def classify(error: BaseException) -> Failure:
    """Whether trying again later, with the same data and the same code, makes sense.

    The error that says so most plainly decides: what the platform raised with `passing` set; else the nearest cause
    that is known by its kind; else it is permanent, since nothing says that it would pass.
    """
    for each in _causes(error):
        if (known := _known(each)) is not None:
            return "passing" if known else "permanent"
    return "permanent"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _known(error: BaseException) -> bool | None:
    """Whether an error passes, as far as its own kind tells."""
    if isinstance(error, PlatformError):
        if error.passing is not None:
            return error.passing
        if isinstance(error, StoreError | RegistryError | LandingError) and error.__cause__ is not None:
            return _outside(error.__cause__)
        return None if error.__cause__ is not None else False
    if isinstance(error, MemoryError | ConnectionError | TimeoutError | InterruptedError | KeyboardInterrupt):
        return True
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error) or "disk" in str(error)
    if isinstance(error, subprocess.CalledProcessError):
        return error.returncode < 0  # killed by a signal
    if _PASSING_NAME.search(type(error).__name__) or _PASSING_TEXT.search(str(error)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno not in _LASTING_ERRNO
    return None


def _outside(reason: BaseException) -> bool:
    """Whether a refusal of a store, a registry or a landing place may pass, from what it was raised from."""
    if isinstance(reason, PlatformError):
        return classify(reason) == "passing"
    if (known := _known(reason)) is not None:
        return known
    response = getattr(reason, "response", None)  # of botocore and of requests
    status = getattr(response, "status_code", None) or (
        response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    )
    return bool(_STATUS.search(str(status or reason)))
