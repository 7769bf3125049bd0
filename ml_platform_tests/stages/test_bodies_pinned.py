"""The platform's own part of each stage's body, pinned.

A code version follows the team's function and the engine behind it. It does not follow the few lines of a stage that
call them: those reach the whole platform, and an edit of a message would make every artifact stale. So they are pinned.

When this test fails, decide whether the change makes the same inputs come out otherwise. If it does, raise "layout"
among the parameters of the stage's `code()` (add it where there is none), so that artifacts of before are not taken for
the new ones. Then write the pins anew:

    python -m ml_platform_tests.stages.test_bodies_pinned
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ml_platform.versions.syntax import parts_of, read_source

PINS = Path(__file__).parent.parent / "snapshots" / "stage_bodies.json"
MODULES = (
    "ml_platform.batches",
    *(
        f"ml_platform.stages.{name}"
        for name in (
            "raw_batch",
            "validated_batch",
            "gated",
            "reference",
            "features",
            "training_set",
            "warm",
            "baseline",
            "trained_model",
            "chosen_model",
            "evaluation",
            "looks",
            "registered_model",
            "against_champion",
            "predictions",
        )
    ),
)
SHOWN_ONLY = ("description", "metadata", "upstream", "checks", "kinds", "describe")
"""Methods that say something to people, or that Dagster's graph shows."""


def parts() -> dict[str, dict[str, str]]:
    """Hash of each function and method of those modules, without comments, docstrings and formatting."""
    found = {}
    for module in MODULES:
        file = Path(str(find_spec(module).origin))  # type: ignore[union-attr]
        of_module = parts_of(file, module, read_source(file, module, is_package=False).digest)
        found[module] = {
            part: digest
            for part, digest in sorted(of_module.items())
            if part.startswith(("function", "method")) and part.rpartition(".")[2] not in SHOWN_ONLY
        }
    return found


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="pinned with Python 3.11, whose syntax tree they hash")
def test_what_a_stage_does_changes_only_with_its_version() -> None:
    pinned, now = json.loads(PINS.read_text()), parts()
    for module in MODULES:
        changed = {p for p in {*pinned[module], *now[module]} if pinned[module].get(p) != now[module].get(p)}
        assert not changed, f"{module}: see the top of this file"


if __name__ == "__main__":
    PINS.write_text(json.dumps(parts(), indent=1) + "\n")
