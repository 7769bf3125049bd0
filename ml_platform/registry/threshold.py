"""The threshold that goes with a binary model: a file beside it in MLflow, and a tag on its version."""

from __future__ import annotations

import json
from pathlib import Path

THRESHOLD_FILE = "threshold.json"
"""In the MLflow model's folder, where its evaluation chose a threshold."""
THRESHOLD_TAG = "ml_platform.threshold"
"""On a version: the least probability of the positive class."""


def write_threshold(value: float) -> bytes:
    """The file's content."""
    return json.dumps({"threshold": value}).encode()


def read_threshold(path: Path) -> float:
    """What such a file says."""
    return float(json.loads(path.read_text())["threshold"])
