"""The provenance record of a model: JSON that says what it was made of, down to the bytes that landed.

It is made of what artifacts say of themselves and of nothing else, so the same model and evaluation always give the
same record; `docs/provenance.md` describes its fields. Where OpenLineage has a facet for something, it has that name
and form here (https://openlineage.io/docs/spec/facets): `sourceCodeLocation`, `ownership`, `processing_engine`,
`version`, `dataSource`, `schema`, `outputStatistics`, `dataQualityAssertions`.

With the record and the raw artifacts that it names, a model can be built once more (`reproduce`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ml_platform.errors import StoreError
from ml_platform.gates.waivers import INPUT as WAIVER
from ml_platform.gates.waivers import WAIVED_BEFORE, Waivers
from ml_platform.provenance.origin import BUILT_FROM
from ml_platform.provenance.walk import COMPARED, TRAINED, VALIDATED, Behind, behind
from ml_platform.recipe import CANDIDATE
from ml_platform.training.checkpoint import resumed
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.store import Store
    from ml_platform.store.manifest import Manifest

SCHEMA = 1
"""Of the record. Raise it when a field changes its meaning or goes; a new field does not need it."""
RECORD_FILE = "provenance.json"
NAMESPACE = "ml_platform"
CODE_FILE = "code.json"
WEIGHTS = "weights.safetensors"
LANDED = "landed/"
"""Folder of the bytes that landed inside a reference's artifact."""

Record = Mapping[str, Any]


def collect(
    store: Store, pipeline: Pipeline, *, trained: Manifest, evaluation: Manifest, training_set: Manifest
) -> dict[str, Any]:
    """The record of a model. Reads manifests and no data.

    Args:
        store: where the artifacts are.
        pipeline: as it is declared; its artifacts say the rest.
        trained, evaluation, training_set: the model's.
    """
    found = behind(store, [evaluation, trained, training_set])
    builds = _Builds()
    artifacts = {
        stage: [_entry(manifest, builds) for _, manifest in sorted(by_batch.items())]
        for stage, by_batch in _in_order(found.used).items()
    }
    evidence = [_entry(manifest, builds) for manifest in found.evidence]
    stages = _stages(store, found)
    ran = list(dict.fromkeys(e["run"]["runId"] for entries in artifacts.values() for e in entries))
    topology = trained.facts["history"].get("topology", {})
    return {
        "schema": SCHEMA,
        "pipeline": {"name": pipeline.name, "description": pipeline.description, "task": pipeline.task},
        "model": {
            "data_version": trained.data_version,
            "fingerprint": trained.fingerprint,
            "weights": _sha256(trained, WEIGHTS),
            "created": trained.created,
        },
        "job": {
            "namespace": NAMESPACE,
            "name": f"{pipeline.name}.{TRAINED}",
            "facets": {
                "ownership": {"owners": [{"name": owner} for owner in pipeline.owners]},
                "sourceCodeLocation": _location(trained),
            },
        },
        "run": {
            "runId": trained.run_id,
            "facets": {"processing_engine": {"name": "torch", "version": topology.get("torch", "")}},
        },
        "runs": [run for run in ran if run],
        "parameters": _parameters(stages, trained, pipeline),
        "topology": topology,
        "environment": _environment(found, stages),
        "builds": builds.found,
        "training": {
            "rows": trained.facts["history"].get("rows"),
            "resumed_on": list(resumed.all_of(trained.facts["history"])),
            "warm_start": trained.facts.get("warm_start", {}),
            **{name: training_set.facts.get(name, {}) for name in ("windows", "train", "holdout")},
            **{name: training_set.facts.get(name, {}) for name in ("left_out", "withdrawn", WAIVED_BEFORE)},
        },
        "waivers": _waivers(store, pipeline.name, [*_flat(found.used), *found.evidence]),
        "evaluation": {
            "data_version": evaluation.data_version,
            **{name: fact for name, fact in evaluation.facts.items() if name not in ("checks", BUILT_FROM)},
        },
        "stages": stages,
        "artifacts": artifacts,
        "evidence": evidence,
        "parent": _entry(found.parent, builds, facts=True) if found.parent else None,
        "missing": found.missing,
    }


def to_json(record: Record) -> bytes:
    """The record as a file has it: the same bytes for the same record. Stages stay in the order of the chain."""
    return (json.dumps(record, indent=1) + "\n").encode()


def from_json(data: bytes, where: object) -> dict[str, Any]:
    """Read what `to_json` wrote.

    Raises:
        StoreError: it is no record, or another version of the platform has written it.
    """
    try:
        record: dict[str, Any] = json.loads(data)
        schema = record["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError("Not a provenance record.", where=where, got=error) from error
    if schema != SCHEMA:
        fix = "use the version of the platform that wrote it, or a later one"
        raise StoreError("The record has another schema.", where=where, got=f"{schema}, not {SCHEMA}", fix=fix)
    return record


def digest(data: bytes) -> str:
    """What a version's tag says of its record."""
    return hashlib.sha256(data).hexdigest()


def version_of(entry: Mapping[str, Any]) -> str:
    """The data version of an artifact of a record."""
    return str(entry["facets"]["version"]["datasetVersion"])


def landed_files(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The landed bytes in a raw batch or a reference of a record: by feed, its `name`, `sha256` and `size`."""
    named = {f["uri"]: f for f in entry["facets"]["dataSource"]} if "dataSource" in entry["facets"] else {}
    feeds = {source["name"] for source in named.values()}
    found: dict[str, Mapping[str, Any]] = {}
    for name, file in entry["files"].items():
        feed = name.removeprefix(LANDED).rpartition(".")[0]
        if feed in feeds and (name.startswith(LANDED) or entry["batch"]):
            found[feed] = {"name": name, **file}
    return found


class _Builds:
    """The distinct things that artifacts were built from; an entry has the place of its own among them."""

    def __init__(self) -> None:
        self.found: list[Mapping[str, Any]] = []

    def place(self, manifest: Manifest) -> int | None:
        origin = manifest.facts.get(BUILT_FROM)
        if origin is None:
            return None  # of a version of the platform before this was kept
        if origin not in self.found:
            self.found.append(origin)
        return self.found.index(origin)


def _entry(manifest: Manifest, builds: _Builds, *, facts: bool = False) -> dict[str, Any]:
    """One artifact as a dataset of OpenLineage, with what it takes to check it; with `facts`, all it says of itself."""
    name = f"{manifest.stage}/{manifest.batch}" if manifest.batch else manifest.stage
    told = manifest.facts
    entry: dict[str, Any] = {
        "namespace": NAMESPACE,
        "name": f"{manifest.pipeline}/{name}",
        "stage": manifest.stage,
        "batch": manifest.batch,
        "fingerprint": manifest.fingerprint,
        "code_version": manifest.code_version,
        "verdict": manifest.verdict,
        "created": manifest.created,
        "seconds": manifest.seconds,
        "run": {"runId": manifest.run_id},
        "build": builds.place(manifest),
        "inputs": dict(manifest.inputs),
        "files": {file.name: {"sha256": file.sha256, "size": file.size} for file in manifest.files},
        "facets": {
            "version": {"datasetVersion": manifest.data_version},
            "outputStatistics": {
                **({"rowCount": _rows(told["rows"])} if "rows" in told else {}),
                "size": manifest.bytes,
                "fileCount": len(manifest.files),
            },
        },
    }
    if manifest.verdict:
        entry["facets"]["dataQualityAssertions"] = {
            "assertions": [{"assertion": each["name"], "success": each["passed"]} for each in told["checks"]]
        }
    if "landed" in told:
        entry["facets"]["dataSource"] = [{"name": feed, "uri": uri} for feed, uri in sorted(told["landed"].items())]
        entry["landed_at"] = told.get("landed_at", {})
    if compared := told.get(COMPARED):
        entry["compared_with"] = {"batches": len(compared), "first": compared[0], "last": compared[-1]}
    if WAIVER in told:
        entry["waiver"] = told[WAIVER]["id"]
    if facts:
        entry["facts"] = {name: fact for name, fact in told.items() if name != "checks"}
    return entry


def _rows(rows: Any) -> int:
    return sum(rows.values()) if isinstance(rows, Mapping) else int(rows)


def _location(manifest: Manifest) -> dict[str, Any]:
    git = manifest.facts.get(BUILT_FROM, {}).get("git", {})
    return {"type": "git", "version": git.get("commit", ""), "dirty": git.get("dirty", False)}


def _flat(used: Mapping[str, Mapping[str, Manifest]]) -> Iterable[Manifest]:
    return (manifest for by_batch in used.values() for manifest in by_batch.values())


def _in_order(used: Mapping[str, Mapping[str, Manifest]]) -> dict[str, Mapping[str, Manifest]]:
    """Stages as they stand in the chain: what reads comes after what it reads."""
    reads = {s: {n.partition("/")[0] for m in by_batch.values() for n in m.inputs} for s, by_batch in used.items()}
    ordered: dict[str, Mapping[str, Manifest]] = {}
    while len(ordered) < len(used):
        ready = sorted(s for s in used if s not in ordered and not (reads[s] & used.keys()) - ordered.keys() - {s})
        ordered |= {stage: used[stage] for stage in ready or sorted(used.keys() - ordered.keys())}
    return ordered


def _stages(store: Store, found: Behind) -> dict[str, Any]:
    """By stage, each code version that its artifacts were built with, and the columns of what it makes."""
    stages: dict[str, Any] = {}
    for stage, by_batch in _in_order(found.used).items():
        newest: dict[str, Manifest] = {}
        for manifest in sorted(by_batch.values(), key=lambda manifest: manifest.created):
            newest[manifest.code_version] = manifest
        code = [json.loads(store.read_bytes(manifest.file(CODE_FILE))) for manifest in newest.values()]
        stages[stage] = {"artifacts": len(by_batch), "code": code}
        if columns := list(newest.values())[-1].facts.get("columns"):
            named = columns if isinstance(columns, Mapping) else {"": columns}
            stages[stage]["schema"] = {
                feed: {"fields": [{"name": name, "type": type_} for name, type_ in fields]}
                for feed, fields in named.items()
            }
    return stages


def _parameters(stages: Mapping[str, Any], trained: Manifest, pipeline: Pipeline) -> dict[str, Any]:
    """What was declared when the model was built, by stage; the recipe by each stage that trains, and their seeds. Of
    candidates, which one was chosen; `recipe` is the chosen one's, and none of an average's."""
    declared = {stage: known["code"][-1]["params"] for stage, known in stages.items()}
    recipes = {stage: params["recipe"] for stage, params in declared.items() if "recipe" in params}
    chosen = trained.facts.get("candidates", {}).get("chosen", "")
    recipe = recipes.get(f"{CANDIDATE}{chosen}" if chosen else TRAINED, {})
    seeds = sorted({each["seed"] for each in recipes.values()})
    found: dict[str, Any] = {"recipe": recipe, "recipes": recipes, "seeds": seeds, "stages": declared}
    if chosen:
        found |= {"candidates": declared[TRAINED]["candidates"], "chosen": chosen}
    start = pipeline.recipe.warm_start if pipeline.recipe else None
    if start is not None and "warm start" in trained.inputs:
        how = {"parent": trained.facts["warm_start"]["fingerprint"], "replay": start.replay}
        if short_hash(how) == trained.inputs["warm start"]:
            found["replay"] = start.replay
    return found


def _environment(found: Behind, stages: Mapping[str, Any]) -> dict[str, Any]:
    """What the stages ran on: each library's version as the code versions have it, Python, Java, the image."""
    libraries: dict[str, str] = {}
    for known in stages.values():
        for code in known["code"]:
            libraries |= code["libraries"]
    java = sorted({m.facts["java"] for m in found.used.get("features", {}).values() if "java" in m.facts})
    last: Mapping[str, Any] = {}
    for manifest in sorted(_flat(found.used), key=lambda manifest: manifest.created):
        last = manifest.facts.get(BUILT_FROM, last)
    return {
        "python": last.get("python", ""),
        "machine": last.get("machine", ""),
        "image": last.get("image", ""),
        "java": ", ".join(java),
        "libraries": dict(sorted(libraries.items())),
    }


def _waivers(store: Store, pipeline: str, manifests: Iterable[Manifest]) -> list[dict[str, Any]]:
    """Every decision of a person that an artifact rests on, whole, so that it can be given again."""
    wanted = {manifest.inputs[WAIVER] for manifest in manifests if WAIVER in manifest.inputs}
    if not wanted:
        return []
    entries = Waivers(store, pipeline).entries()
    return [{"id": e.decision.id, **asdict(e.decision)} for e in entries if e.decision.id in wanted]


def _sha256(manifest: Manifest, name: str) -> str:
    return next((file.sha256 for file in manifest.files if file.name == name), "")


def stage_names(record: Record) -> tuple[str, ...]:
    """The stages of a record, in the order of the chain."""
    return tuple(record["artifacts"])


def batches_of(record: Record, stage: str = VALIDATED) -> list[Mapping[str, Any]]:
    """The artifacts of a stage of a record, by batch."""
    return list(record["artifacts"].get(stage, ()))
