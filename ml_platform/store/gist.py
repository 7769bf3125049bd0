"""What is remembered of a manifest that was read and found whole: all but its facts, and the stamps of its files.

While the stamps are as they were, neither the manifest nor the files need be read again.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ml_platform.store import layout
from ml_platform.store.backend import Stamp
from ml_platform.store.manifest import ArtifactFile, LateFacts, Manifest


class Gist(NamedTuple):
    """A manifest whose facts are read when they are looked at, and of each blob the path and the stamp it had."""

    manifest: Manifest
    stamps: list[tuple[str, str]]


def write_gist(manifest: Manifest, stamps: Mapping[str, str]) -> str:
    """A gist as text.

    Args:
        manifest: what was read.
        stamps: of its blobs, by SHA-256.
    """
    m = manifest
    files = [(file.name, file.sha256, file.size, stamps[file.sha256]) for file in m.files]
    record = (m.batch, m.code_version, m.data_version, dict(m.inputs), m.verdict, m.created, m.seconds, m.run_id, files)
    return json.dumps(record, separators=(",", ":"))


def read_gists(
    texts: Mapping[str, str],
    pipeline: str,
    stage: str,
    facts: Callable[[str, str, str, str], Mapping[str, Any]],
) -> dict[str, Gist]:
    """Read what `write_gist` wrote, by fingerprint.

    Args:
        texts: by fingerprint.
        pipeline, stage: whose artifacts.
        facts: reads the facts of a manifest, given pipeline, stage, fingerprint and data version.
    """
    records = json.loads(f"[{','.join(texts.values())}]")  # at once: ten thousand calls cost more than the parsing
    result = {}
    for fingerprint, record in zip(texts, records, strict=True):
        batch, code_version, data_version, inputs, verdict, created, seconds, run_id, files = record
        manifest = Manifest(
            pipeline=pipeline,
            stage=stage,
            batch=batch,
            fingerprint=fingerprint,
            code_version=code_version,
            data_version=data_version,
            inputs=inputs,
            files=tuple([ArtifactFile(name=name, sha256=sha256, size=size) for name, sha256, size, _ in files]),
            facts=LateFacts(facts, pipeline, stage, fingerprint, data_version),
            verdict=verdict,
            created=created,
            seconds=seconds,
            run_id=run_id,
        )
        result[fingerprint] = Gist(manifest, [(layout.blob(sha256), stamp) for _, sha256, _, stamp in files])
    return result


def unchanged(gists: Mapping[str, Gist], stamps: Mapping[str, Stamp]) -> dict[str, Manifest]:
    """Those manifests of which every blob has the stamp that it had."""
    now = {(path, stamp.text) for path, stamp in stamps.items()}
    return {path: gist.manifest for path, gist in gists.items() if now.issuperset(gist.stamps)}


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: among many new objects that all stay it takes most of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
