"""The small protocol at the store's seam: how bytes are kept. `local.py` and `remote.py` are its two kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple, Protocol

BLOCK = 1 << 20


class Stamp(NamedTuple):
    """A file's size in bytes, a text that changes whenever its bytes may have changed ("" where there is none), and
    when it was last written, in seconds since 1970 by the store's own clock."""

    size: int
    text: str
    modified: float = 0.0


class Backend(Protocol):
    """Files under a root, by path relative to it. Every write is atomic and, when it returns, durable.

    Whatever the underlying file system raises comes out as StoreError.
    """

    scratch_root: Path
    """Where scratch folders are made."""
    stamps_from: int
    """From so many files on, looking at their stamps costs less than reading them."""

    def is_there(self) -> bool:
        """Whether anything is kept there."""

    def place(self, path: str) -> str:
        """A name of the file that is unique over all stores."""

    def read_many(self, paths: Sequence[str]) -> dict[str, bytes]:
        """The bytes of those that exist."""

    def stamps(self, paths: Sequence[str]) -> dict[str, Stamp]:
        """The stamps of those that exist."""

    def digests(self, paths: Sequence[str]) -> dict[str, str]:
        """The SHA-256 of those that exist, from reading every byte."""

    def put_many(self, sources: Mapping[str, Path]) -> None:
        """Put each source's bytes at its path, in place of what is there. A source in scratch may be moved away."""

    def create(self, files: Mapping[str, bytes]) -> set[str]:
        """Write new files, each unless there is one. Returns those made: of several writers at once, one makes it."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a file in place of what is there."""

    def scan(self, folder: str) -> dict[str, Stamp]:
        """The stamps of all files below a folder, from listing it."""

    def claim(self, paths: Sequence[str], data: bytes) -> set[str]:
        """As `create`, for files of equal bytes that a crash of the machine may take."""

    def renew_many(self, paths: Sequence[str], data: bytes) -> None:
        """As `replace`, for files of equal bytes that a crash of the machine may take: what counts is when."""

    def fetch(self, path: str, to: Path) -> None:
        """Copy a file to a local path. Raises FileNotFoundError where there is none."""

    def remove_many(self, paths: Sequence[str]) -> None:
        """Remove those files that are there."""

    def remove_unless(self, paths: Sequence[str], wanted: Callable[[Sequence[str]], Set[str]]) -> set[str]:
        """Remove files but those of which `wanted` says so, who is asked as late as can be. Returns those removed."""

    def describe(self) -> str:
        """What it is and how much room it has, for people."""
