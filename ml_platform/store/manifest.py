"""What the store says of an artifact: where it came from, and the hash of every byte of it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_platform.errors import DamagedArtifactError, StoreError

SCHEMA_VERSION = 1

_Text = str | bytes
_Bytes = bytes  # inside the class that name is a property
_SEALED, _BODY = '{\n "seal": "', '",'


@dataclass(frozen=True, kw_only=True)
class ArtifactFile:
    """One file of an artifact. `name` is its path inside the artifact, with forward slashes; `size` is in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """An immutable artifact: the committed output of a stage for a batch.

    Args:
        pipeline, stage: whose output it is.
        batch: the batch, or "" for an unpartitioned stage.
        fingerprint: hash of the code version and all inputs' data versions; the artifact's name.
        code_version: hash of what the stage's code does.
        data_version: hash of the content and of nothing else.
        inputs: data versions of what was read, by input name.
        files: every file, in name order.
        facts: JSON facts about the content (rows, metrics, ...): what people and later stages ask for.
        verdict: what a gate said, "accepted" or "rejected", or "waived" where it would have rejected it and a person
            accepted it; "" for a stage without a gate.
        created: UTC, ISO 8601.
        seconds: how long the body took.
        run_id: the Dagster run that built it.
    """

    pipeline: str
    stage: str
    batch: str
    fingerprint: str
    code_version: str
    data_version: str
    inputs: Mapping[str, str]
    files: tuple[ArtifactFile, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""
    created: str = ""
    seconds: float = 0.0
    run_id: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> ArtifactFile:
        """The file of that name. Raises StoreError where there is none."""
        for file in self.files:
            if file.name == name:
                return file
        raise StoreError(
            "The artifact has no such file.",
            where=f"{self.pipeline}/{self.stage}/{self.fingerprint}",
            got=name,
            fix=f"it has {', '.join(f.name for f in self.files) or 'none'}",
        )

    def to_json(self) -> str:
        """Canonical JSON, with the schema version and, in front, a seal over all that follows."""
        record = {**vars(self), "files": [vars(file) for file in self.files]}
        record |= {"inputs": dict(self.inputs), "facts": dict(self.facts)}
        body = json.dumps({"schema": SCHEMA_VERSION, **record}, sort_keys=True, indent=1)
        return f"{_SEALED}{_seal(body[1:].encode())}{_BODY}{body[1:]}"

    @classmethod
    def from_json(cls, text: _Text) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            StoreError: written by another version of the platform.
            DamagedArtifactError: not JSON, not a manifest, or changed since it was written.
        """
        try:
            record = json.loads(text)
            version = record["schema"]
            if version != SCHEMA_VERSION:
                raise StoreError(
                    "The manifest was written by another version of the platform.",
                    got=f"schema {version}, this one reads {SCHEMA_VERSION}",
                    fix="upgrade ml_platform",
                )
            data = text.encode() if isinstance(text, str) else text
            if record.pop("seal", None) != _seal(data[len(_SEALED) + 64 + len(_BODY) :]):
                raise DamagedArtifactError("The manifest was changed after it was written.")
            del record["schema"]
            files = tuple(ArtifactFile(**file) for file in record.pop("files"))
            return cls(files=files, **record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtifactError(
                "Not a manifest.", got=repr(text[:80]), fix="remove it; the stage will run again"
            ) from error


class LateFacts(Mapping[str, Any]):
    """Facts that are read when somebody looks at them: most are not, and they are the most of a manifest."""

    def __init__(self, read: Callable[..., Mapping[str, Any]], *given: str) -> None:
        self._read, self._given = read, given

    @functools.cached_property
    def _facts(self) -> Mapping[str, Any]:
        return self._read(*self._given)

    def __getitem__(self, key: str) -> Any:
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return repr(self._facts)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[Mapping[str, Any]]]:
        return dict, (self._facts,)


def _seal(body: _Bytes) -> str:
    return hashlib.sha256(body).hexdigest()
