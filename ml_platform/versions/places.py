"""Where a module's file is: found as the import system would find it, without importing or running anything."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_IN_ORDER = (
    *importlib.machinery.EXTENSION_SUFFIXES,
    *importlib.machinery.SOURCE_SUFFIXES,
    *importlib.machinery.BYTECODE_SUFFIXES,
)
"""Suffixes of files that hold a module, in the order in which Python looks for them in a folder."""
_STANDARD = os.path.dirname(os.path.abspath(os.__file__))
_RACY_NS = 100_000_000
"""What changed so shortly before it was looked at may change again within the same tick of the file system's clock."""


@dataclass(frozen=True)
class Place:
    """Where a module is: its file (None for a namespace package) and, for a package, its folders."""

    file: Path | None
    folders: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether it came with an installed distribution."""
        at = self._at
        return "site-packages" in at or "dist-packages" in at

    @property
    def is_standard(self) -> bool:
        """Whether it is the standard library's own."""
        return not self.is_installed and os.path.abspath(self._at).startswith(_STANDARD + os.sep)

    @property
    def _at(self) -> str:
        return str(self.file or next(iter(self.folders), ""))


class Finder:
    """Finds modules by their dotted names. It looks at the disk once for each name.

    `folders` are those that it looked into, with the time of their last change: as long as that stays, so does what
    was found, and what was not.
    """

    def __init__(self) -> None:
        global _path
        self.folders: dict[str, int] = {folder: changed_at(folder) for folder in map(os.path.abspath, sys.path)}
        if _path != self.folders:
            if _path:
                importlib.invalidate_caches()
            _top_levels.clear()
            _path = {} if is_racy(max(self.folders.values(), default=0)) else dict(self.folders)
        self._found: dict[str, Place | None] = {}
        self._names: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> Place | None:
        """Where a module is; None where there is none of that name."""
        if name not in self._found:
            self._found[name] = self._look(name)
        return self._found[name]

    def names_in(self, folder: str) -> frozenset[str]:
        """What a folder holds; nothing where it is no folder."""
        if folder not in self._names:
            self.folders[folder], self._names[folder] = _listing(folder)
        return self._names[folder]

    def _look(self, name: str) -> Place | None:
        parent, _, last = name.rpartition(".")
        if parent:
            above = self.find(parent)
            return self._in_folders(above.folders, last) if above else None
        if name not in _top_levels:
            _top_levels[name] = _top_level(name)
        return _top_levels[name]

    def _in_folders(self, folders: Iterable[str], name: str) -> Place | None:
        namespace = []
        for folder in folders:
            names = self.names_in(folder)
            base = os.path.join(folder, name)
            if name in names and name != "__pycache__":
                inside = self.names_in(base)
                for suffix in _IN_ORDER:
                    if f"__init__{suffix}" in inside:
                        return Place(Path(base, f"__init__{suffix}"), (base,))
                if name.isidentifier() and os.path.isdir(base):
                    namespace.append(base)
            for suffix in _IN_ORDER:
                if name + suffix in names:
                    return Place(Path(base + suffix))
        return Place(None, tuple(namespace)) if namespace else None


_top_levels: dict[str, Place | None] = {}
_path: dict[str, int] = {}
"""The folders of `sys.path` that `_top_levels` were found in, as they were then."""


def _top_level(name: str) -> Place | None:
    for each in sys.meta_path:
        find = getattr(each, "find_spec", None)
        spec = find(name, None) if find else None
        if spec is not None:
            file = Path(spec.origin) if spec.has_location and spec.origin else None
            folders = tuple(spec.submodule_search_locations or ())
            return Place(file, folders) if file or folders else None
    return None


_listings: dict[str, tuple[int, frozenset[str]]] = {}


def _listing(folder: str) -> tuple[int, frozenset[str]]:
    """When a folder last changed, and what it holds. Remembered as long as it does not change."""
    changed = changed_at(folder)
    known = _listings.get(folder)
    if known is not None and known[0] == changed:
        return known
    try:
        names = frozenset(os.listdir(folder)) if changed else frozenset()
    except NotADirectoryError:
        names = frozenset()
    if not is_racy(changed):
        _listings[folder] = (changed, names)
    return changed, names


def changed_at(path: str) -> int:
    """When a file or folder last changed, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def is_racy(changed: int) -> bool:
    """Whether something that changed then may have changed once more without another time."""
    return time.time_ns() - changed < _RACY_NS


def shown_file(name: str, place: Place) -> str:
    """A module's file as people know it: relative to the project, which is the folder with pyproject.toml or .git.

    Where there is no such folder above the module's outermost package, relative to what holds that package.
    """
    assert place.file is not None
    depth = name.count(".") + (1 if place.folders else 0)
    top = place.file.parents[depth]
    root = top if place.is_installed else _project(top)
    return place.file.relative_to(root).as_posix()


@functools.cache
def _project(top: Path) -> Path:
    for folder in (top, *top.parents):
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    return top
