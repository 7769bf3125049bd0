"""The reports as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ml_platform.gates.rendering.finding import CheckedFile

SCHEMA = 1


def render(pipeline: str, checked: Sequence[CheckedFile]) -> str:
    """One object: `accepted` of all together, and of each file its path and its `GateReport`, as `to_json` has it."""
    files = [{"path": file.path, "report": json.loads(file.report.to_json())} for file in checked]
    accepted = all(file.report.accepted for file in checked)
    record = {"schema": SCHEMA, "pipeline": pipeline, "accepted": accepted, "files": files}
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
