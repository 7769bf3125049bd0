"""Code versions: a hash of what a stage's code does, found without importing or running any of it.

    code_version(["acme.features:compute"], params={"lookback": 2}, libraries=["pyspark"]).value

From the module of each root the first-party modules that it imports are followed, at whatever depth and also from
inside functions. Each counts with its syntax tree, without comments, docstrings and formatting. Other packages that
they import count with their installed version. `if TYPE_CHECKING:` is not followed. A file beside a module counts with
its bytes where a text in the module is its name. So does the code that a parameter names as "module:attribute".

A package on the way to a module counts only with what its `__init__` does beyond importing and defining: a product's
`__init__` often imports the whole product, and a change of its epochs must not make its features stale. Where names are
imported from a package itself, its `__init__` is followed like any other module.

What it cannot see: modules and files whose names are computed, what a compiled module imports, and a package's
`__getattr__`. Write `import` for them where it does no harm, or set the version by hand: `Pipeline(versions=...)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ml_platform.errors import DeclarationError
from ml_platform.versions.cause import Cause, Kind
from ml_platform.versions.fingerprint import short_hash
from ml_platform.versions.imports import closure, file_of, parts_of
from ml_platform.versions.libraries import normal, owner_of, version_of

CODE_VERSION = 1
"""Raise it when the version of the same code changes."""


_NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class CodeVersion:
    """What a stage's code does.

    Args:
        value: the version.
        roots: where it begins, "module:attribute".
        modules: hash of every first-party module that it reaches, and of data files by their path.
        libraries: installed version of every other package that it reaches or names.
        params: the declared parameters that it reads.
        pin: the version that the team set by hand, in place of modules and libraries.
        files: of a version that was read back: each module's file, relative to its project.
        parts: of a version that was read back: of each module, a hash of each function, class, constant and import.
    """

    value: str
    roots: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    pin: str | None = None
    files: Mapping[str, str] = field(default_factory=dict, compare=False)
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)

    def pinned(self, pin: str) -> CodeVersion:
        """The version that a team set by hand: neither code nor libraries count, the parameters still do."""
        value = short_hash({"code": CODE_VERSION, "pin": pin, "params": self.params})
        return CodeVersion(value=value, roots=self.roots, params=self.params, pin=pin)

    def diff(self, earlier: CodeVersion) -> list[Cause]:
        """What has changed since `earlier`. Empty exactly when the versions are equal."""
        if self.value == earlier.value:
            return []
        causes = list(_compared("parameter", _flat(self.params), _flat(earlier.params)))
        if self.pin != earlier.pin:
            text = f"version set by hand: {earlier.pin or 'none'} -> {self.pin or 'none'}"
            causes.append(Cause(kind="version", text=text, before=earlier.pin, now=self.pin))
        elif self.pin is None:
            if self.roots != earlier.roots:
                names = [", ".join(roots) or "none" for roots in (earlier.roots, self.roots)]
                text = f"code: {' -> '.join(names)}"
                causes.append(Cause(kind="code", text=text, before=list(earlier.roots), now=list(self.roots)))
            causes = [
                *(cause for name in sorted({*self.modules, *earlier.modules}) for cause in self._module(name, earlier)),
                *causes,
                *_compared("library", self.libraries, earlier.libraries),
            ]
        return causes or [Cause(kind="version", text="the way code versions are made changed")]

    def file(self, module: str) -> str:
        """A module's file, relative to its project."""
        return self.files.get(module) or file_of(module)

    def parts_of(self, module: str) -> Mapping[str, str]:
        """A hash of each part of a module, such as "function build"; nothing where that is not known (any more)."""
        return self.parts.get(module) or parts_of(module, self.modules[module])

    def _module(self, name: str, earlier: CodeVersion) -> Iterator[Cause]:
        """What has changed in a module, down to its functions where both are known."""
        if self.modules.get(name) == earlier.modules.get(name):
            return
        file = (self if name in self.modules else earlier).file(name)
        if name not in earlier.modules or name not in self.modules:
            words = "now counts" if name in self.modules else "no longer counts"
            yield Cause(kind="code", text=f"{file}: {words}", name=file)
            return
        parts = _changes(self.parts_of(name), before) if (before := earlier.parts_of(name)) else []
        if not parts or not self.parts_of(name):
            yield Cause(kind="code", text=f"{file} changed", name=file)
            return
        yield from (Cause(kind="code", text=f"{file}: {part} {what}", name=file, part=part) for part, what in parts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with each module's file and parts: what a later version is compared with."""
        return {
            "value": self.value,
            "roots": list(self.roots),
            "modules": dict(self.modules),
            "libraries": dict(self.libraries),
            "params": dict(self.params),
            "pin": self.pin,
            "files": {name: self.file(name) for name in self.modules},
            "parts": {name: dict(parts) for name in self.modules if (parts := self.parts_of(name))},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CodeVersion:
        """Read what `to_dict` wrote, this or another release's: what is not known is left out."""
        known = {each.name for each in fields(cls)}
        return cls(**{**{k: v for k, v in record.items() if k in known}, "roots": tuple(record["roots"])})


def code_version(roots: Sequence[str], *, params: Mapping[str, Any], libraries: Sequence[str] = ()) -> CodeVersion:
    """Hash the code behind some functions.

    Args:
        roots: "module:attribute" each.
        params: declared parameters that the code reads, of JSON types. Code that they name so counts too.
        libraries: names of distributions that can change the result without being imported by first-party code.

    Raises:
        DeclarationError: there is no such module or library, a module has a syntax error, a parameter is not JSON.
    """
    try:
        plain = json.loads(json.dumps(dict(params), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DeclarationError("A parameter is not made of JSON values.", where=", ".join(roots), got=error) from error
    named = tuple(sorted({text.partition(":")[0] for text in _texts(plain) if _NAMED.fullmatch(text)}))
    found = closure(tuple(root.partition(":")[0] for root in roots), named)
    reached = {name: version for name, version in map(owner_of, found.packages) if name}
    for library in libraries:
        if (version := version_of(library)) is None:
            raise DeclarationError(
                "A declared library is not installed.",
                where=", ".join(roots),
                got=library,
                fix=f"pip install {library}",
            )
        reached[normal(library)] = version
    modules = {**found.modules, **found.data}
    counted = {"code": CODE_VERSION, "roots": list(roots), "modules": modules, "libraries": reached}
    return CodeVersion(
        value=short_hash({**counted, "params": plain}),
        roots=tuple(roots),
        modules=dict(sorted(modules.items())),
        libraries=dict(sorted(reached.items())),
        params=plain,
    )


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


# Saying what changed


def _compared(kind: Kind, now: Mapping[str, Any], before: Mapping[str, Any]) -> Iterator[Cause]:
    for name, what in _changes(now, before):
        said = f": {before[name]} -> {now[name]}" if what == "changed" else f" {what}"
        yield Cause(kind=kind, text=f"{kind} {name}{said}", name=name, before=before.get(name), now=now.get(name))


def _changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[tuple[str, str]]:
    changes = []
    for name in sorted({*now, *before}):
        if name not in before:
            changes.append((name, "added"))
        elif name not in now:
            changes.append((name, "removed"))
        elif now[name] != before[name] or type(now[name]) is not type(before[name]):
            changes.append((name, "changed"))
    return changes


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
