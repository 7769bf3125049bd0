"""A provenance record as a tree for a terminal: batches that are alike stand together, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.tree import Tree

from ml_platform.provenance.declared import commits
from ml_platform.provenance.record import WEIGHTS, landed_files, version_of
from ml_platform.provenance.walk import TRAINED
from ml_platform.training.checkpoint import resumed
from ml_platform.versions.fingerprint import short_hash
from ml_platform.words import counted, few

if TYPE_CHECKING:
    from ml_platform.provenance.record import Record

Entry = Mapping[str, Any]
LIBRARIES = ("torch", "numpy", "pyspark", "pyarrow", "polars", "pandera", "scikit-learn")
SHORT = 12


def tree(record: Record, title: str, decisions: Sequence[str] = ()) -> Tree:
    """The tree.

    Args:
        record: of a model.
        title: which version it is, with its aliases.
        decisions: what people have decided about it, a sentence each.
    """
    root = Tree(f"[bold]{escape(title)}[/]")
    model = record["model"]
    of_model = root.add("[bold]model[/]")
    _add(of_model, "weights", f"SHA-256 {model['weights']}")
    _add(of_model, "data version", model["data_version"])
    _add(of_model, "trained", f"{model['created'][:16].replace('T', ' ')} UTC, Dagster run {record['run']['runId']}")
    for line in _evaluation(record["evaluation"]):
        of_model.add(escape(line))
    if record["parent"]:
        parent = record["parent"]
        _add(of_model, "went on from", f"{version_of(parent)}, weights {parent['files'][WEIGHTS]['sha256'][:SHORT]}")
    for decision in decisions:
        _add(of_model, "decided", decision)
    _add_made_with(root, record)
    of_data = root.add("[bold]made of[/]")
    for stage in reversed(record["artifacts"]):
        _add_stage(of_data, stage, record)
    left_out = record["training"]["left_out"]
    if left_out:
        branch = root.add(f"[bold]left out[/] {counted(len(left_out), 'batch', 'batches')}")
        for batch, reason in list(left_out.items())[:10]:
            branch.add(escape(f"{batch}: {reason!s:.160}"))
    for waiver in record["waivers"]:
        root.add(f"[bold]waived[/] {escape(_waiver(waiver))}")
    if record["evidence"]:
        names = sorted({entry["batch"] for entry in record["evidence"]})
        root.add(f"[bold]compared with[/] {escape(few(names))}, of which no row was learned from")
    for missing in record["missing"]:
        root.add(f"[red]no longer in the store[/] {escape(missing)}")
    return root


def _add(branch: Tree, name: str, text: object) -> Tree:
    return branch.add(f"{escape(name)} [dim]{escape(str(text))}[/]")


def _evaluation(evaluation: Mapping[str, Any]) -> Iterator[str]:
    for name, value in evaluation["metrics"].items():
        around = (evaluation.get("intervals") or {}).get(name)
        beside = evaluation["baseline"].get(name)
        told = f" ({around[0]:.4f} to {around[1]:.4f})" if around else ""
        yield f"{name} {value:.4f}{told}" + (f", baseline {beside:.4f}" if beside is not None else "")


def _add_made_with(root: Tree, record: Record) -> None:
    branch = root.add("[bold]made with[/]")
    _add(branch, "code", commits(record))
    topology, environment = record["topology"], record["environment"]
    _add(branch, "topology", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in topology.items()))
    for each in record["training"].get("resumed_on", ()):
        _add(branch, "went on", resumed.describe(each))
    _add(branch, "Python", f"{environment['python'] or 'unknown'}, Java {environment['java'] or 'unknown'}")
    known = environment["libraries"]
    _add(branch, "libraries", ", ".join(f"{name} {known[name]}" for name in LIBRARIES if name in known))
    if environment["image"]:
        _add(branch, "image", environment["image"])
    for stage, recipe in record["parameters"]["recipes"].items():
        told = ", ".join(f"{name} {value}" for name, value in recipe.items() if value not in (None, {}))
        _add(branch, "recipe" if stage == TRAINED else f"recipe of {stage}", told)
    _add(branch, "split", record["parameters"]["stages"].get("training_set", {}).get("split"))


def _add_stage(of_data: Tree, stage: str, record: Record) -> None:
    entries = record["artifacts"][stage]
    if not entries[0]["batch"]:
        (entry,) = entries
        branch = of_data.add(f"{escape(stage)} [dim]{version_of(entry)}[/]{_verdict(entry)}")
        _add(branch, "code version", f"{entry['code_version']}{_commit(entry, record)}")
        for feed, file in landed_files(entry).items():
            _add(branch, f"landed {feed}", f"SHA-256 {file['sha256']}")
        return
    branch = of_data.add(f"{escape(stage)} [dim]{counted(len(entries), 'batch', 'batches')}[/]")
    for alike in ranges(entries):
        first, last = alike[0], alike[-1]
        names = first["batch"] if len(alike) == 1 else f"{first['batch']} to {last['batch']} ({len(alike)})"
        rows = sum(entry["facets"]["outputStatistics"].get("rowCount", 0) for entry in alike)
        told = [counted(rows, "row")] if rows else []
        told.append(f"code {first['code_version'][:SHORT]}{_commit(first, record)}")
        hashed = version_of(first) if len(alike) == 1 else f"all {short_hash([version_of(entry) for entry in alike])}"
        told.append(hashed)
        branch.add(f"{escape(names)}{_verdict(first)} [dim]{escape(', '.join(told))}[/]")


def ranges(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Neighbouring batches of which the same is to be said: verdict, code, commit."""
    alike = groupby(entries, key=lambda entry: (entry["verdict"], entry["code_version"], entry["build"]))
    return [list(some) for _, some in alike]


def _verdict(entry: Entry) -> str:
    colour = {"accepted": "green", "waived": "yellow", "rejected": "red"}.get(entry["verdict"])
    return f" [{colour}]{entry['verdict']}[/]" if colour else ""


def _commit(entry: Entry, record: Record) -> str:
    git = record["builds"][entry["build"]]["git"] if entry["build"] is not None else {"commit": ""}
    return f", commit {git['commit'][:SHORT]}{'+' if git['dirty'] else ''}" if git["commit"] else ""


def _waiver(waiver: Mapping[str, Any]) -> str:
    name = f"{waiver['stage']} {waiver['batch']}".rstrip()
    return f"{name} by {waiver['by']} on {waiver['when'][:10]}: {waiver['reason']}"
