"""Declared values replaced for one run: `ml-platform run --set recipe.epochs=5`.

A replaced value counts in every code version that reads it, as if it had been declared. The next run without it is back
at the declared one, and finds what was built before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DeclarationError

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline

SETTABLE = ("recipe", "candidates", "choose", "features", "split", "leakage_limit", "scoring")
"""Fields of a pipeline of which values can be replaced. The others say what the pipeline is."""
TRAIN = "train"
"""Stands for the recipe, and where there are candidates for that of each."""


def overridden(pipeline: Pipeline, texts: Sequence[str]) -> Pipeline:
    """The pipeline with some declared values replaced, checked like any declaration.

    Args:
        pipeline: as declared.
        texts: each "recipe.epochs=5" or "candidates.wide.epochs=5": a path of names (`train` stands for `recipe`, or
            for every candidate), and JSON or plain text.

    Raises:
        DeclarationError: no such field, or a value that the declaration does not allow.
    """
    for text in texts:
        name, equals, value = text.partition("=")
        path = [part.strip() for part in name.split(".")]
        where = f"--set {text}"
        if not equals or path[0] not in (TRAIN, *SETTABLE):
            raise DeclarationError(
                "Not a value that can be replaced.",
                where=where,
                got=repr(text),
                fix=f"write train.epochs=5; the first word is one of {', '.join((TRAIN, *SETTABLE))}",
            )
        for each in _trained(pipeline, path):
            _check_trained(pipeline, each, where)
            pipeline = _replaced(pipeline, each, _value(value.strip()), where)
    return pipeline


def _trained(pipeline: Pipeline, path: Sequence[str]) -> list[list[str]]:
    """The paths that a path means: one, but for `train`, where there are several candidates."""
    if path[0] != TRAIN:
        return [[*path]]
    recipes = [["candidates", name] for name in pipeline.candidates] or [["recipe"]]
    return [[*recipe, *path[1:]] for recipe in recipes]


def _check_trained(pipeline: Pipeline, path: Sequence[str], where: str) -> None:
    """Refuse to set something of a recipe that the pipeline does not have.

    Raises:
        DeclarationError: it has candidates, or has none of that name.
    """
    known = [f"candidates.{name}" for name in pipeline.candidates] or ["recipe"]
    if path[0] in ("recipe", "candidates") and not any(
        path[: name.count(".") + 1] == name.split(".") for name in known
    ):
        raise DeclarationError(
            "The pipeline trains nothing of that name.",
            where=where,
            got=".".join(path[:2]),
            fix=f"{TRAIN}.epochs=5 sets it of all that it trains; one alone is {', '.join(known)}",
        )


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value


def _replaced(declaration: Any, path: Sequence[str], value: Any, where: str) -> Any:
    """A copy of a declaration (or of a mapping inside it) with one value replaced."""
    name, rest = path[0], path[1:]
    if isinstance(declaration, Mapping):
        if rest and name in declaration:
            value = _replaced(declaration[name], rest, value, where)
        if isinstance(value, tuple):
            value = list(value)  # in a mapping stands plain JSON
        return {**declaration, name: value}
    known = [field.name for field in fields(declaration)] if is_dataclass(declaration) else []
    if name not in known:
        raise DeclarationError(
            "There is no such field.", where=where, got=name, fix=f"one of {', '.join(known)}" if known else None
        )
    if rest:
        value = _replaced(getattr(declaration, name), rest, value, where)
    elif is_dataclass(getattr(declaration, name)):
        raise DeclarationError(
            "Not a single value.",
            where=where,
            got=name,
            fix=f"name one of its fields: {', '.join(field.name for field in fields(getattr(declaration, name)))}",
        )
    try:
        return replace(declaration, **{name: value})
    except TypeError as error:
        raise DeclarationError("The value does not fit.", where=where, got=repr(value), fix=str(error)) from error
