"""A gate's reports as text: for people, for GitHub's annotations, for JUnit's readers, for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ml_platform.gates.rendering import as_json, github, junit
from ml_platform.gates.rendering.finding import CheckedFile

__all__ = ["FORMATS", "CheckedFile"]

FORMATS: Mapping[str, Callable[[str, Sequence[CheckedFile]], str]] = {
    "github": github.render,
    "junit": junit.render,
    "json": as_json.render,
}
"""Those for programs, by name: `render(pipeline's name, what was checked)` gives the output. `table` is for people."""
