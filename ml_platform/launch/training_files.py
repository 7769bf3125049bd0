"""The files to learn from, of a job whose processes share only the store with who launched it.

The launcher writes what it knows of each (`described`), a machine keeps that in its work folder (`Known`), and a rank
fetches a file when it reads it (`finder`).
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_platform.store import Store, layout
from ml_platform.store.manifest import ArtifactFile
from ml_platform.training import plan
from ml_platform.training.config import TrainingJob

_KNOWN = "files.json"


def described(job: TrainingJob, paths: Sequence[str], references: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """References to files that are here, each with its labelled rows by row group; the first with its columns.

    Args:
        job: whose label it is.
        paths: the files.
        references: name, SHA-256 and size of each.

    Raises:
        TrainingError: a file cannot be read.
        FeatureError: a file lacks a column.
    """
    found = [{**each, "rows": plan.count(job, plan.here(path))} for path, each in zip(paths, references, strict=True)]
    schema = plan.schema_of(plan.here(paths[0])).remove_metadata()
    found[0]["schema"] = base64.b64encode(schema.serialize().to_pybytes()).decode()
    return found


class Known:
    """What a machine knows of a job's files before it has any, by the name that stands for each in the job."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, Any]] = {}

    def add(self, files: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        """Add files that were `described`. Returns their names."""
        names = tuple(layout.blob(each["sha256"]) for each in files)
        for name, each in zip(names, files, strict=True):
            self._files[name] = {**self._files.get(name, {}), **each}
        return names

    def write(self, work: Path) -> None:
        """Keep it for this machine's ranks."""
        work.mkdir(parents=True, exist_ok=True)
        (work / _KNOWN).write_text(json.dumps(self._files))


def finder(store: Store, work: Path) -> plan.Find:
    """Finds the files that are `Known` in a work folder. A file is fetched and verified when a rank reads it, once a
    machine."""
    known = json.loads((work / _KNOWN).read_text())

    def find(name: str) -> plan.TrainingFile:
        entry = known[name]
        file = ArtifactFile(name=entry["name"], sha256=entry["sha256"], size=entry["size"])

        def local() -> Path:
            with _alone(work / "fetching" / file.sha256):  # not once a rank
                return store.path(file)

        text = entry.get("schema")
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) if text else None
        return plan.TrainingFile(f"{file.name} ({name})", local, tuple(entry["rows"]), schema)

    return find


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One at a time, of all threads and processes of this machine."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
