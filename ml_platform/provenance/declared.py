"""A pipeline as it was declared when a model was built: `run --set` and edits since then are undone where they can be.

The record has the parameters of every stage's code version. Of these the recipe, the features, the split and the
leakage limit are put back (what `--set` can replace); what else of a declaration has changed shows in code versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DeclarationError, RefusedError
from ml_platform.pipeline import Features, Split
from ml_platform.recipe import CANDIDATE, TRAINED_MODEL, Recipe, WarmStart
from ml_platform.versions.cause import Cause
from ml_platform.versions.code import CodeVersion

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.provenance.record import Record
    from ml_platform.stages.stage import Stage


def as_recorded(pipeline: Pipeline, record: Record) -> Pipeline:
    """The pipeline with the values of a record in place of those that are declared now.

    Raises:
        RefusedError: a value of then cannot be declared any more, or the record does not know it.
    """
    declared = record["parameters"]["stages"]
    try:
        return replace(
            pipeline,
            **_trained(pipeline, record),
            features=_features(pipeline.features, record),
            split=_split(pipeline.split, declared.get("training_set", {})),
            leakage_limit=declared.get("training_set", {}).get("leakage_limit", pipeline.leakage_limit),
        )
    except (DeclarationError, TypeError) as error:
        raise RefusedError(
            "What was declared when the model was built cannot be declared now.",
            where=f"pipeline {pipeline.name!r}",
            got=error,
            fix=f"check the code of then out: {commits(record)}",
        ) from error


def _trained(pipeline: Pipeline, record: Record) -> dict[str, Any]:
    """The recipe, or the candidates and how one of them was chosen."""
    stages = record["parameters"]["stages"]
    if "candidates" not in stages[TRAINED_MODEL]:
        return {"recipe": _recipe(pipeline.recipe, record), "candidates": {}}
    then = {name: _read(stages[f"{CANDIDATE}{name}"]["recipe"]) for name in stages[TRAINED_MODEL]["candidates"]}
    now = {name: pipeline.candidates.get(name) for name in then}
    return {
        "recipe": None,
        "candidates": {name: _as_then(now[name], values) for name, values in then.items()},
        "choose": stages[TRAINED_MODEL]["choose"],
    }


def _read(recipe: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(Recipe)}
    return {name: value for name, value in recipe.items() if name in known}


def _as_then(now: Recipe | None, then: Mapping[str, Any]) -> Recipe:
    return Recipe(**then) if now is None else replace(now, **then)


def _recipe(now: Recipe | None, record: Record) -> Recipe:
    then = _read(record["parameters"]["recipe"])
    if then.get("elastic"):  # its recipe does not say how many there were
        then |= {name: record["topology"][name] for name in ("processes", "threads")}
    start = (now.warm_start if now else None) or WarmStart()
    if record["parent"] is not None:
        if "replay" not in record["parameters"]:
            raise RefusedError(
                "The record does not say how much of what its parent had seen was replayed.",
                got=record["parent"]["name"],
                fix="register the model again with the pipeline as it was declared then",
            )
        start = WarmStart(replay=record["parameters"]["replay"])
    asked = record["parameters"]["stages"].get("training_set", {}).get("warm_start", False)
    return _as_then(now, then | {"warm_start": start if asked or record["parent"] is not None else None})


def _features(now: Features, record: Record) -> Features:
    known = record["stages"].get("features")
    if known is None:
        return now
    code = known["code"][-1]
    then = {name: code["params"][name] for name in ("numeric", "categorical", "keys", "lookback")}
    return replace(now, function=code["roots"][0], **then)


def _split(now: Split, declared: Mapping[str, Any]) -> Split:
    then = declared.get("split")
    bounds: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in (then or {}).items()}
    return Split(**bounds) if bounds else now


def replaced(pipeline: Pipeline, recorded: Pipeline) -> list[str]:
    """Which declared values differ from those of a record, such as "recipe.epochs: 3 now, 12 then"."""
    found = []
    here, there = _parts(pipeline), _parts(recorded)
    for part in [name for name in here if name in there]:
        now, then = here[part], there[part]
        found += [f"{part}.{n}: {now[n]} now, {then[n]} then" for n in now if now[n] != then[n]]
    found += [f"{part}: not declared now" for part in there if part not in here]
    if pipeline.choose != recorded.choose and recorded.candidates:
        found.append(f"choose: {pipeline.choose} now, {recorded.choose} then")
    if pipeline.leakage_limit != recorded.leakage_limit:
        found.append(f"leakage_limit: {pipeline.leakage_limit} now, {recorded.leakage_limit} then")
    return found


def _parts(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The declarations that a record knows, as JSON, by what people call them."""
    parts: dict[str, Any] = {"recipe": pipeline.recipe} if pipeline.recipe else {}
    parts |= {f"candidates.{name}": recipe for name, recipe in pipeline.candidates.items()}
    parts |= {"features": pipeline.features, "split": pipeline.split}
    return {name: json.loads(json.dumps(asdict(part))) for name, part in parts.items()}


def code_changes(stages: Mapping[str, Stage], record: Record) -> dict[str, list[Cause]]:
    """By stage, what of its code, its libraries and its parameters is otherwise than when the record's were built."""
    found: dict[str, list[Cause]] = {}
    for name, known in record["stages"].items():
        if name not in stages:
            found[name] = [Cause(kind="code", text=f"there is no stage {name} any more", name=name)]
        elif causes := stages[name].version.diff(CodeVersion.from_dict(known["code"][-1])):
            found[name] = causes
    return found


def commits(record: Record) -> str:
    """Where the code of a record is, for people: the commits that it was built from, and of which stages."""
    built: dict[str, set[str]] = {}
    for stage, entries in record["artifacts"].items():
        for entry in entries:
            for commit in _commits(record, entry["build"]):
                built.setdefault(commit, set()).add(stage)
    if not built:
        return "no commit is known"
    if len(built) == 1:
        return next(iter(built))
    return "; ".join(f"{commit} for {', '.join(sorted(stages))}" for commit, stages in built.items())


def _commits(record: Record, build: int | None) -> Iterator[str]:
    if build is None:
        return
    for name, whose in (("git", ""), ("platform_git", " of the platform")):
        git = record["builds"][build].get(name, {})
        if git.get("commit"):
            yield f"{git['commit']}{whose}{' with changes that are in no commit' if git['dirty'] else ''}"
