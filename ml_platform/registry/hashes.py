"""Hashes of a folder's files, as a model version carries them."""

from __future__ import annotations

import json
from pathlib import Path

from ml_platform.files import sha256

_OF_MLFLOW = frozenset({"registered_model_meta"})
"""Who loads a version by its name gets these from MLflow beside it; where the artifact store is a local folder, which
is not copied to be read, that is in the store itself. They name the version, and nothing of the model reads them."""


def of_folder(folder: Path) -> dict[str, str]:
    """SHA-256 by path inside the folder, with forward slashes, in name order."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def to_tag(hashes: dict[str, str]) -> str:
    """Hashes as the value of a tag."""
    return json.dumps(hashes, sort_keys=True, separators=(",", ":"))


def from_tag(text: str | None) -> dict[str, str]:
    """Read what `to_tag` wrote; empty where there is nothing to read, which no folder's hashes equal."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def difference(expected: dict[str, str], found: dict[str, str]) -> str:
    """What differs, in words: the first few files that are missing, added or changed. Empty when nothing does.

    What MLflow itself adds to a version that somebody loaded is no difference.
    """
    words = [f"{name} is missing" for name in expected if name not in found]
    words += [f"{name} was added" for name in found if name not in expected and name not in _OF_MLFLOW]
    words += [f"{name} was changed" for name in expected if name in found and expected[name] != found[name]]
    return "; ".join(words[:5])
