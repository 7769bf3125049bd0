"""Checks of the values in a declaration, by kind. Each raises DeclarationError, whatever the type it is given."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ml_platform.errors import DeclarationError
from ml_platform.naming import keywords_of, optimizers

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAG = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
_OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")


def identifier(kind: str, name: object) -> None:
    """A name of the platform's: it is part of asset keys, folders and URLs."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeclarationError(
            f"A {kind.lower()}'s name is lower-case letters, digits and underscores, from a letter on, at most 63.",
            where=kind,
            got=repr(name),
        )


def text(where: str, name: str, value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise DeclarationError(f"`{name}` must be a string.", where=where, got=repr(value))
    return value


def instance(where: str, name: str, value: object, *kinds: type) -> None:
    """An object of one of `kinds`."""
    if not isinstance(value, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise DeclarationError(f"`{name}` must be a {names}.", where=where, got=repr(value))


def tuple_of(where: str, name: str, value: object, kind: type) -> tuple[Any, ...]:
    """A tuple (or a list, which becomes one) of `kind`. A lone element is refused: a str would pass for its letters."""
    if not isinstance(value, tuple | list):
        raise DeclarationError(
            f"`{name}` must be a tuple.",
            where=where,
            got=repr(value),
            fix="write a tuple; a one-element tuple needs a comma: (x,)",
        )
    for element in value:
        if not isinstance(element, kind):
            what = "strings" if kind is str else f"{kind.__name__} objects"
            raise DeclarationError(f"`{name}` must hold {what}.", where=where, got=repr(element))
    return tuple(value)


def whole_number(where: str, name: str, value: object, least: int, most: int | None = None) -> None:
    """An int (True is none) from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DeclarationError(
            f"`{name}` must be a whole number of at least {least}.", where=where, got=repr(value), fix="write an int"
        )
    if value < least:
        raise DeclarationError(f"`{name}` must be at least {least}.", where=where, got=value)
    if most is not None and value > most:
        raise DeclarationError(f"`{name}` must be at most {most}.", where=where, got=value)


def is_finite(value: object) -> bool:
    """Whether `value` is an int or a float, and neither a bool nor infinite nor not-a-number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def json_values(where: str, name: str, value: object) -> None:
    """Keyword arguments that JSON can hold: they are written beside the model, and into its fingerprint."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise DeclarationError(f"`{name}` must be a mapping of names to values.", where=where, got=repr(value))
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DeclarationError(
            f"`{name}` holds a value that JSON cannot: {error}.",
            where=where,
            got=repr(value),
            fix="use numbers (finite), strings, booleans, None, and lists and mappings of them",
        ) from error


def tags(where: str, value: object) -> None:
    """Tags as Dagster takes them, of strings to strings."""
    if not isinstance(value, Mapping):
        raise DeclarationError("`tags` must be a mapping of strings to strings.", where=where, got=repr(value))
    for key, content in value.items():
        if not (isinstance(key, str) and isinstance(content, str)):
            raise DeclarationError("A tag is a string, and so is its value.", where=where, got=f"{key!r}: {content!r}")
        if not (_TAG.fullmatch(key) and (not content or _TAG.fullmatch(content)) and "/" not in content):
            raise DeclarationError(
                "Dagster takes no such tag.",
                where=where,
                got=f"{key!r}: {content!r}",
                fix="letters, digits, _ - and . (at most 63); a key may have one / after a first such part",
            )


def versions(where: str, value: object, stages: set[str]) -> None:
    """Code versions set by hand, by stage."""
    if not isinstance(value, Mapping):
        raise DeclarationError("`versions` must be a mapping of stages to versions.", where=where, got=repr(value))
    for stage, version in value.items():
        if stage not in stages:
            raise DeclarationError(
                "A version is set for a stage that there is not.",
                where=f"{where}, versions",
                got=repr(stage),
                fix=f"one of {_listed(stages)}",
            )
        if not isinstance(version, str) or not version.strip():
            raise DeclarationError(
                "A version that is set by hand is a text.",
                where=f"{where}, versions, {stage}",
                got=repr(version),
                fix='such as "3"; leave the stage out to have its code looked at',
            )


def owners(where: str, value: tuple[str, ...]) -> None:
    """Owners as Dagster takes them."""
    for owner in value:
        if not _OWNER.fullmatch(owner):
            raise DeclarationError("An owner is an e-mail address or team:name.", where=where, got=repr(owner))


def optimizer(where: str, name: object) -> None:
    """The name of a class of `torch.optim`, as far as torch is installed."""
    known = optimizers()
    if text(where, "optimizer", name) not in known and known:
        raise DeclarationError(
            "There is no such optimizer.", where=where, got=name, fix=f"a class of torch.optim: {_listed(known)}"
        )


def hyperparameters(where: str, model: str, given: Mapping[str, Any]) -> None:
    """Keyword arguments that the function `model` takes, as far as its source tells."""
    takes = keywords_of(model)
    if takes is not None and (wrong := set(given) - takes):
        raise DeclarationError(
            "The model takes no such hyperparameter.",
            where=f"{where}, {model}",
            got=_listed(wrong),
            fix=f"it takes {_listed(takes) or 'none'}",
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
