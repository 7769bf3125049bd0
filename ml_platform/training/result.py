"""What a finished job says of itself, for those who have no torch loaded: launchers and stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.files import sha256

CONTENT = ("model.json", "preprocessing.json", "weights.safetensors")
"""The files that the same job always writes with the same bytes."""
FILES = (*CONTENT, "history.json")
"""The files to keep."""
RESULT = "result.json"


@dataclass(frozen=True)
class FolderResult:
    """A finished, verified model folder.

    Args:
        folder: where it is.
        files: SHA-256 of each of `FILES`.
        history: the content of `history.json`.
    """

    folder: Path
    files: Mapping[str, str]
    history: Mapping[str, Any]


def read_result(folder: Path) -> FolderResult | None:
    """The result of a job; None where it is not finished, or a file is not the one that it promised."""
    try:
        files = json.loads((folder / RESULT).read_text())["files"]
        for name in FILES:
            if sha256(folder / name) != files[name]:
                return None
        return FolderResult(folder, files, json.loads((folder / "history.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
