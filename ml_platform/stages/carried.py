"""What goes with a model into the registry beside its weights: files that each new version holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.provenance.card import CARD_FILE, card
from ml_platform.provenance.record import RECORD_FILE, collect, digest, from_json, to_json
from ml_platform.provenance.registered import describe
from ml_platform.registry.models import COMMIT_TAG, PROVENANCE_TAG
from ml_platform.registry.threshold import THRESHOLD_FILE, THRESHOLD_TAG, read_threshold, write_threshold

if TYPE_CHECKING:
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.stages.stage import Bench
    from ml_platform.store.manifest import Manifest


def carried(bench: Bench, trained: Manifest, evaluation: Manifest, training_set: Manifest) -> dict[str, Path]:
    """Files to go with a version, by their path in it: where the model came from, for programs and for people; and the
    threshold with which it tells two classes apart.

    Args:
        bench: its scratch folder is where they are written.
        trained, evaluation, training_set: of the model.
    """
    record = collect(bench.store, bench.pipeline, trained=trained, evaluation=evaluation, training_set=training_set)
    threshold = evaluation.facts.get("threshold", {}).get("value")
    chosen = {} if threshold is None else {THRESHOLD_FILE: write_threshold(threshold)}
    return {
        RECORD_FILE: _written(bench, RECORD_FILE, to_json(record)),
        CARD_FILE: _written(bench, CARD_FILE, card(record).encode()),
        **{name: _written(bench, name, data) for name, data in chosen.items()},
    }


def told(files: Mapping[str, Path]) -> dict[str, Path]:
    """Those of the files that say where the model came from."""
    return {name: files[name] for name in (RECORD_FILE, CARD_FILE)}


def provenance_tags(files: Mapping[str, Path]) -> dict[str, str]:
    """What a version's tags say of its provenance: the hash of the record, and the commit that the model was trained
    from, with a plus where the work tree had changes. And its threshold."""
    data = files[RECORD_FILE].read_bytes()
    place = json.loads(data)["job"]["facets"]["sourceCodeLocation"]
    return {
        PROVENANCE_TAG: digest(data),
        COMMIT_TAG: f"{place['version']}{'+' if place['dirty'] else ''}" if place["version"] else "",
        **({THRESHOLD_TAG: repr(read_threshold(path))} if (path := files.get(THRESHOLD_FILE)) else {}),
    }


def describe_version(
    connection: Connection, version: RegisteredVersion, files: Mapping[str, Path], decisions: Sequence[str] = ()
) -> None:
    """Show the card as a version's description, with what was decided about the model, a sentence each."""
    record = from_json(files[RECORD_FILE].read_bytes(), files[RECORD_FILE])
    describe(connection, version.name, version.version, record, decisions)


def _written(bench: Bench, name: str, data: bytes) -> Path:
    path = bench.scratch / "carried" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
