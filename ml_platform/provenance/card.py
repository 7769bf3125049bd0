"""The model card: a page in Markdown for people who are to use a model or to answer for it. Written from facts only.

Everything is taken from the provenance record, and who approved the model from the registry's audit trail. What nobody
has measured is not in it; it says so where people expect it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ml_platform.evaluation.report import SECTIONS
from ml_platform.provenance.record import Record, batches_of, version_of
from ml_platform.recipe import AVERAGE, TRAINED_MODEL
from ml_platform.training.checkpoint import resumed
from ml_platform.words import counted, few

CARD_FILE = "model_card.md"
LONGEST = 5000
"""Characters of a version's description that every database of MLflow keeps."""
KEPT = 3
"""Sections that a description always has: the first, and the last two, which say where it is from and who decided."""
SHOWN = 5


def card(record: Record, *, approvals: Sequence[str] = (), title: str = "") -> str:
    """The card.

    Args:
        record: of the model.
        approvals: who decided what about it and why, a sentence each, the oldest first.
        title: in the heading, such as "version 3"; the pipeline's name alone, when empty.
    """
    return "\n\n".join("\n".join(lines) for lines in _sections(record, approvals, title)) + "\n"


def description(record: Record, *, approvals: Sequence[str] = (), title: str = "") -> str:
    """The card as a version's description: without its longest tables where it would be too long for one."""
    parts = ["\n".join(lines) for lines in _sections(record, approvals, title)]
    note = f"_Shortened; all of it is in the version's `{CARD_FILE}`._"
    whole = "\n\n".join(parts)
    while len(whole) > LONGEST and len(parts) > KEPT:
        parts.remove(max(parts[1 : 1 - KEPT], key=len))
        whole = "\n\n".join([*parts, note])
    return whole[:LONGEST]


def _sections(record: Record, approvals: Sequence[str], title: str) -> Iterator[list[str]]:
    told = record["pipeline"]
    yield [f"# {' '.join(filter(None, (told['name'], title)))}", "", told["description"]]
    yield ["## What it is", "", *_items(_what(record))]
    yield ["## Data", "", *_items(_data(record))]
    yield from _metrics(record["evaluation"])
    yield ["## Limits", "", *_items(_limits(record))]
    yield ["## Provenance", "", *_items(_provenance(record))]
    yield ["## Decisions", "", *(_items(approvals) or ["- None was made when this was written."])]


def _what(record: Record) -> Iterator[str]:
    recipe, model = record["parameters"]["recipe"], record["model"]
    yield f"Task: {record['pipeline']['task']}"
    if recipe:
        shape = ", ".join(f"{name} {value}" for name, value in recipe.get("hyperparameters", {}).items())
        yield f"Network: `{recipe.get('model')}`{f' ({shape})' if shape else ''}"
        yield (
            f"Learned with {recipe.get('optimizer')}, learning rate {recipe.get('learning_rate')}, "
            f"{recipe.get('epochs')} epochs, {recipe.get('batch_size')} rows a step, seed {recipe.get('seed')}"
        )
    if chosen := record["parameters"].get("chosen"):
        names = ", ".join(record["parameters"]["candidates"])
        yield f"Candidates: {names}; {'their average' if chosen == AVERAGE else f'{chosen} was chosen'}"
    topology = record["topology"]
    yield (
        f"Trained by {counted(topology.get('processes', 1), 'process', 'processes')} on {topology.get('device')}, "
        f"{model['created'][:16].replace('T', ' ')} UTC"
    )
    for each in record["training"].get("resumed_on", ()):
        yield f"Training was interrupted and went on {resumed.describe(each)}"
    if record["parent"]:
        start = record["training"]["warm_start"]
        yield f"It went on from the weights of version {start.get('champion')}, {start.get('data_version')}"
    owners = [owner["name"] for owner in record["job"]["facets"]["ownership"]["owners"]]
    yield f"Owners: {', '.join(owners) or 'none are declared'}"


def _data(record: Record) -> Iterator[str]:
    training = record["training"]
    for part, name in (("train", "Learned from"), ("holdout", "Evaluated on")):
        window, counts = training["windows"].get(part, []), training[part]
        if counts:
            yield (
                f"{name} {counted(counts['batches'], 'batch', 'batches')}, {' to '.join(window)}, "
                f"{counted(counts['rows'], 'row')}"
            )
    entries = record["artifacts"]
    yield f"Training set: data version `{version_of(entries['training_set'][0])}`"
    for stage, some in entries.items():
        if some[0]["verdict"] and not some[0]["batch"] and stage != "training_set":
            yield f"Reference `{stage}`: data version `{version_of(some[0])}`, {some[0]['verdict']}"
    waived = [entry["batch"] for entry in batches_of(record) if entry["verdict"] == "waived"]
    yield f"Let in by a person against the gate: {few(waived, SHOWN) or 'none'}"
    yield f"Left out: {few(list(training['left_out']), SHOWN) or 'none'}"


def _metrics(evaluation: Mapping[str, Any]) -> Iterator[list[str]]:
    """The sections of the evaluation's own report."""
    first, *more = [text for section in SECTIONS if (text := section(evaluation))]
    yield ["## Metrics", "", f"On {counted(evaluation['rows'], 'held-out row')}.", "", first]
    yield from ([text] for text in more)


def _limits(record: Record) -> Iterator[str]:
    evaluation = record["evaluation"]
    holdout = record["training"]["windows"].get("holdout", [])
    yield f"Nothing is known of how good it is outside {' to '.join(holdout)}, the time that it was evaluated on"
    slices = [part for part in evaluation.get("slices") or () if part.get("bad")]
    for part in slices[:SHOWN]:
        yield f"{part.get('column')} {part.get('value')} ({part.get('rows'):,} rows): {part['bad']}"
    for name in evaluation["metrics"]:
        low_high = (evaluation.get("intervals") or {}).get(name)
        other = evaluation["baseline"].get(name)
        if low_high and other is not None and low_high[0] <= other <= low_high[1]:
            yield f"{name}: gradient boosting ({other:.4f}) lies within the interval of the model"
    known_later = sorted(record["training"]["withdrawn"])
    if known_later:
        yield f"Batches that a person has withdrawn: {few(known_later, SHOWN)}"


def _provenance(record: Record) -> Iterator[str]:
    model, place = record["model"], record["job"]["facets"]["sourceCodeLocation"]
    yield f"Weights: SHA-256 `{model['weights']}`"
    yield f"Trained model: data version `{model['data_version']}`, fingerprint `{model['fingerprint']}`"
    commit, dirty = place["version"], " with changes that are in no commit" if place["dirty"] else ""
    yield f"Code: commit `{commit}`{dirty}" if commit else "Code: no commit is known"
    (trained,) = record["artifacts"][TRAINED_MODEL]
    platforms = {} if trained["build"] is None else record["builds"][trained["build"]].get("platform_git", {})
    if platforms.get("commit"):
        changed = " with changes that are in no commit" if platforms["dirty"] else ""
        yield f"The platform's code: commit `{platforms['commit']}`{changed}"
    environment = record["environment"]
    named = {name: environment["libraries"].get(name) for name in ("torch", "pyspark", "polars", "scikit-learn")}
    versions = ", ".join(f"{name} {version}" for name, version in named.items() if version)
    yield f"Ran on Python {environment['python'] or 'unknown'}, Java {environment['java'] or 'unknown'}, {versions}"
    if environment["image"]:
        yield f"Image: `{environment['image']}`"
    yield f"Dagster runs: {few([f'`{run}`' for run in record['runs']], SHOWN)}"
    if record["missing"]:
        yield f"No longer in the store: {few(record['missing'])}"
    yield f"All of it: `ml-platform models show {record['pipeline']['name']}@ALIAS`, or `provenance.json` beside this"


def _items(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]
