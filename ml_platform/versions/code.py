"""Code versions: a hash of what a stage's code does, found without importing or running any of it.

    code_version(["acme.features:compute"], params={"lookback": 2}, libraries=["pyspark"]).value

From the module of each root the first-party modules that it imports are followed, at whatever depth and also from
inside functions. Each counts with its syntax tree, without comments, docstrings and formatting. Other packages that
they import count with their installed version. `if TYPE_CHECKING:` is not followed.

A package on the way to a module counts only with what its `__init__` does beyond importing and defining: a product's
`__init__` often imports the whole product, and a change of its epochs must not make its features stale. Where names are
imported from a package itself, its `__init__` is followed like any other module.

What it cannot see: modules imported by a computed name, data files, and a package's `__getattr__`. Name those as
further roots or parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ml_platform.errors import DeclarationError
from ml_platform.versions.fingerprint import short_hash
from ml_platform.versions.imports import closure
from ml_platform.versions.libraries import normal, owner_of, version_of

CODE_VERSION = 1
"""Raise it when the version of the same code changes."""


@dataclass(frozen=True, kw_only=True)
class CodeVersion:
    """What a stage's code does.

    Args:
        value: the version.
        roots: where it begins, "module:attribute".
        modules: hash of every first-party module that it reaches.
        libraries: installed version of every other package that it reaches or names.
        params: the declared parameters that it reads.
        pin: the version that the team set by hand, in place of modules and libraries.
    """

    value: str
    roots: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    pin: str | None = None

    def diff(self, earlier: CodeVersion) -> list[str]:
        """What has changed since `earlier`, a line each. Empty exactly when the versions are equal."""
        lines = []
        if self.pin != earlier.pin:
            lines.append(f"version set by hand: {earlier.pin or 'none'} -> {self.pin or 'none'}")
        if self.roots != earlier.roots:
            lines.append(f"code: {', '.join(earlier.roots) or 'none'} -> {', '.join(self.roots) or 'none'}")
        lines += [f"module {name} {what}" for name, what in _changes(self.modules, earlier.modules)]
        for word, now, before in (
            ("library", self.libraries, earlier.libraries),
            ("parameter", _flat(self.params), _flat(earlier.params)),
        ):
            for name, what in _changes(now, before):
                values = f"{before.get(name, 'none')} -> {now.get(name, 'none')}" if what == "changed" else what
                lines.append(f"{word} {name}{':' if what == 'changed' else ''} {values}")
        return lines or ([] if self.value == earlier.value else ["the way code versions are made changed"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON, to be kept among an artifact's facts."""
        return {**asdict(self), "roots": list(self.roots)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> CodeVersion:
        """Read what `to_dict` wrote."""
        return cls(**{**record, "roots": tuple(record["roots"])})


def code_version(
    roots: Sequence[str], *, params: Mapping[str, Any], libraries: Sequence[str] = (), pin: str | None = None
) -> CodeVersion:
    """Hash the code behind some functions.

    Args:
        roots: "module:attribute" each.
        params: declared parameters that the code reads, of JSON types.
        libraries: names of distributions that can change the result without being imported by first-party code.
        pin: a version set by hand. Then neither code nor libraries are looked at; the parameters still count.

    Raises:
        DeclarationError: there is no such module or library, a module has a syntax error, a parameter is not JSON.
    """
    try:
        plain = json.loads(json.dumps(dict(params), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DeclarationError("A parameter is not made of JSON values.", where=", ".join(roots), got=error) from error
    modules: dict[str, str] = {}
    reached: dict[str, str] = {}
    if pin is None:
        modules, packages = closure(tuple(root.partition(":")[0] for root in roots))
        reached = {name: version for name, version in map(owner_of, packages) if name}
        for library in libraries:
            if (version := version_of(library)) is None:
                raise DeclarationError(
                    "A declared library is not installed.",
                    where=", ".join(roots),
                    got=library,
                    fix=f"pip install {library}",
                )
            reached[normal(library)] = version
    counted = {"code": CODE_VERSION, "roots": list(roots), "modules": modules, "libraries": reached, "params": plain}
    if pin is not None:
        counted = {"code": CODE_VERSION, "pin": pin, "params": plain}
    return CodeVersion(
        value=short_hash(counted),
        roots=tuple(roots),
        modules=dict(sorted(modules.items())),
        libraries=dict(sorted(reached.items())),
        params=plain,
        pin=pin,
    )


# Saying what changed


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
