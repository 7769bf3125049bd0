"""Which modules a module reaches, and a hash of what each does: read from the source, nothing is imported or run."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ml_platform.errors import DeclarationError
from ml_platform.versions import syntax
from ml_platform.versions.places import Finder, Place, changed_at, is_racy, shown_file
from ml_platform.versions.syntax import Import, Source

_WORDS_ONLY = frozenset(
    f"ml_platform.{name}" for name in ("batches", "declared", "errors", "feeds", "naming", "pipeline", "recipe")
)
"""Modules that cannot change a result by themselves: texts for people, and the form of declarations, whose values the
stages that read them count among their parameters."""
_CODE = (".py", ".pyc", ".pyi", ".so", ".pyx", ".pxd", ".c")
"""Files that are not data, though a text in a module may be their name."""


@dataclass(frozen=True)
class Closure:
    """What some modules reach: hashes of first-party modules, hashes of data files that they name, other packages."""

    modules: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)


def closure(roots: tuple[str, ...], named: tuple[str, ...] = ()) -> Closure:
    """Follow the imports of some modules. What was found is kept until a file or a folder that mattered changes.

    Args:
        roots: modules that must be there.
        named: further ones, which count where there are such modules.

    Raises:
        DeclarationError: there is no such module, or one has a syntax error.
    """
    key = (roots, named, tuple(sys.path))
    known = _closures.get(key)
    if known is not None and known.holds():
        return known.found
    walk = _Walk(roots, named)
    _closures[key] = walk
    return walk.found


def file_of(module: str) -> str:
    """The file of a module of a closure as people know it, relative to its project; the name where there is none."""
    place = Finder().find(module) if "/" not in module else None
    return shown_file(module, place) if place is not None and place.file is not None else module


def parts_of(module: str, digest: str) -> dict[str, str]:
    """A hash of each part of a module of a closure: see `syntax.parts_of`. Nothing where it is gone or another by now.

    Looked up when somebody asks why, and when an artifact is committed: code versions themselves need none of it.
    """
    if (module, digest) not in _parts:
        place = Finder().find(module) if "/" not in module else None
        try:
            parts = syntax.parts_of(place.file, module, digest) if place and place.file else {}
        except (FileNotFoundError, DeclarationError):
            parts = {}  # edited since its version was read, and that is what counts
        _parts[(module, digest)] = parts
    return _parts[(module, digest)]


class _Walk:
    """One closure being made, and then what it rests on."""

    def __init__(self, roots: tuple[str, ...], named: tuple[str, ...]) -> None:
        self.found = Closure()
        self._finder = Finder()
        self._find = self._finder.find
        self._files: dict[str, _Stamp] = {}
        self._own = {root.partition(".")[0] for root in roots}
        self._first_party: dict[str, bool] = {}
        for root in roots:
            if not self._is_own(root) or self._find(root) is None:
                raise DeclarationError("There is no such module.", got=root, fix="check the spelling")
        self._follow([*roots, *(name for name in named if self._find(name))])
        changes = [*self._finder.folders.values(), *(stamp[0] for stamp in self._files.values())]
        self._settled = not is_racy(max(changes, default=0))

    def holds(self) -> bool:
        """Whether nothing that it rests on has changed since."""
        try:
            return (
                self._settled
                and all(changed_at(folder) == changed for folder, changed in self._finder.folders.items())
                and all(_stamp(file) == stamp for file, stamp in self._files.items())
            )
        except FileNotFoundError:
            return False

    def _is_own(self, name: str) -> bool:
        top = name.partition(".")[0]
        if top not in self._first_party:
            place = self._find(top)
            standard = top in sys.stdlib_module_names or top in sys.builtin_module_names
            if standard and (place is None or place.is_standard or place.is_installed):
                self._first_party[top] = False
            else:
                self._first_party[top] = place is not None and (top in self._own or not place.is_installed)
                if not self._first_party[top]:
                    self.found.packages.add(top)
        return self._first_party[top]

    def _follow(self, waiting: list[str]) -> None:
        modules = self.found.modules
        seen: set[str] = set()
        on_the_way: set[str] = set()
        acted: set[str] = set()
        read: dict[str, tuple[Place, Source]] = {}
        reached: dict[str, list[str]] = {}
        while waiting:
            name = waiting.pop()
            if name in seen or name in _WORDS_ONLY or not self._is_own(name):
                continue
            seen.add(name)
            place = self._find(name)
            if place is None:
                continue  # a module that is there on other machines only
            parts = name.split(".")
            on_the_way.update(".".join(parts[:count]) for count in range(1, len(parts)))
            if place.file is not None:
                source = self._read(place, name)
                modules[name] = source.digest
                read[name] = (place, source)
                reached[name] = list(self._reached(source, on_the_way))
                waiting += reached[name]
            if waiting:
                continue
            for package in on_the_way - modules.keys() - acted:
                # What it does when it is imported may be done by other modules, which then count like any.
                acted.add(package)
                above = self._find(package)
                if above is not None and above.file is not None and (source := self._read(above, package)).effects:
                    waiting += [each for line in source.effect_imports for each in self._modules(line, on_the_way)]
        for package in acted - modules.keys():
            above = self._find(package)
            if above is not None and above.file is not None and (effects := self._read(above, package).effects):
                modules[package] = effects
        packages = {each for each in on_the_way | seen if (found := self._find(each)) and found.folders}
        for name, (place, source) in read.items():
            self._count_data(name, place, source, packages & _with_above(_all_from(name, reached)))

    def _reached(self, source: Source, on_the_way: set[str]) -> Iterator[str]:
        for line in source.imports:
            yield from self._modules(line, on_the_way)
        for bound, used in source.attributes:
            if bound.partition(".")[0] in self.found.packages or not self._is_own(bound):
                continue
            place = self._find(bound)
            if place is not None and place.folders:
                yield from (name for chain in used for name in self._submodules(bound, chain))

    def _modules(self, line: Import, on_the_way: set[str]) -> Iterator[str]:
        """The modules that an import statement imports."""
        base = line.base
        if not line.names or not self._is_own(base):
            yield base
            return
        names = line.names
        if "*" in names:
            place = self._find(base)
            package = place if place is not None and place.folders and place.file is not None else None
            names = (*names, *(self._read(package, base).exports if package else ()))
        submodules = [f"{base}.{each}" for each in names if each != "*" and self._find(f"{base}.{each}")]
        yield from submodules
        if len(submodules) < len(names):
            yield base
        else:
            on_the_way.add(base)

    def _submodules(self, package: str, chain: str) -> Iterator[str]:
        """The module at the end of a chain of attributes of a package, `acme.parts.shape` of `parts.shape.cut`."""
        name = package
        for attribute in chain.split("."):
            if self._find(f"{name}.{attribute}") is None:
                break
            name = f"{name}.{attribute}"
        if name != package:
            yield name

    def _read(self, place: Place, name: str) -> Source:
        assert place.file is not None
        file = str(place.file)
        self._files[file] = stamp = _stamp(file)
        known = _sources.get((file, name))
        if known is None or known[0] != stamp:
            known = (stamp, syntax.read_source(place.file, name, is_package=bool(place.folders)))
            _sources[(file, name)] = known
        return known[1]

    def _count_data(self, name: str, place: Place, source: Source, reached: Iterable[str]) -> None:
        """Count the data files that a module names: in its folder, below it, or up to its outermost package.

        A text in the module that is the name of a file there (or a pattern such as "*.json") is taken for a file that
        it reads; "data" and "x.csv" together for data/x.csv. Files whose names are given in full are also found in the
        folders of the packages that it reaches and, where it asks for its own place, beside its outermost package.
        """
        assert place.file is not None
        parents = name.split(".") if place.folders else name.split(".")[:-1]
        folder = str(place.file.parent)
        while parents:
            self._count(parents, folder, self._named_in(folder, source))
            folder = os.path.dirname(folder)
            parents = parents[:-1]
        if source.asks_where and not place.is_installed:
            self._count([], folder, self._named_in(folder, source, outside=True))
        for package in reached:
            above = self._find(package)
            for folder in above.folders if above else ():
                self._count(package.split("."), folder, self._named_in(folder, source, outside=True))

    def _count(self, package: list[str], folder: str, paths: Iterable[str]) -> None:
        for path in paths:
            self._files[path] = stamp = _stamp(path)
            known = _data.get(path)
            if known is None or known[0] != stamp:
                with open(path, "rb") as file:
                    known = (stamp, hashlib.file_digest(file, "sha256").hexdigest()[:32])
                _data[path] = known
            key = "/".join([*package, os.path.relpath(path, folder).replace(os.sep, "/")])
            self.found.data[key if "/" in key else f"./{key}"] = known[1]

    def _named_in(self, folder: str, source: Source, *, outside: bool = False) -> set[str]:
        names = self._finder.names_in(folder)
        wanted = {name for name in names & source.texts if name != "__pycache__"}
        for pattern in () if outside else source.patterns:
            wanted |= {name for name in fnmatch.filter(names, pattern) if "." in name}
        paths, within = {os.path.join(folder, name) for name in wanted}, names if outside else names | {".."}
        paths |= {os.path.normpath(os.path.join(folder, t)) for t in source.paths if t.partition("/")[0] in within}
        found: set[str] = set()
        for path in paths:
            if os.path.isdir(path):
                inside = path.startswith(folder + os.sep)  # "../.." is no data, and leads round in circles
                found |= self._named_in(path, source) if inside else set()
            elif os.path.isfile(path) and not path.endswith(_CODE):
                found.add(path)
        return found


def _all_from(name: str, reached: Mapping[str, Sequence[str]]) -> set[str]:
    """All modules that a module reaches, at whatever depth."""
    found: set[str] = set()
    waiting = [*reached[name]]
    while waiting:
        if (each := waiting.pop()) not in found:
            found.add(each)
            waiting += reached.get(each, ())
    return found


def _with_above(modules: Iterable[str]) -> set[str]:
    """Modules, and the packages that they are in."""
    return {name[:end] for name in modules for end in (len(name), *(i for i, c in enumerate(name) if c == "."))}


# Files that are read once, as long as they do not change

_Stamp = tuple[int, int, int]
_closures: dict[tuple[tuple[str, ...], ...], _Walk] = {}
_sources: dict[tuple[str, str], tuple[_Stamp, Source]] = {}
_data: dict[str, tuple[_Stamp, str]] = {}
_parts: dict[tuple[str, str], dict[str, str]] = {}


def _stamp(file: str) -> _Stamp:
    stat = os.stat(file)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
