"""requirements.lock names exact versions and no places, and satisfies what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LINES = [
    line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip() and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked() -> dict[str, str]:
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


def test_every_line_is_one_exact_version_without_a_place() -> None:
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9._!]*", line), line
    assert len(locked()) == len(LINES), "a package stands there twice"


def test_the_cuda_libraries_are_left_to_the_torch_build_that_needs_them() -> None:
    assert locked()["torch"] == "2.13.0"
    assert not [name for name in locked() if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_it_satisfies_what_the_project_asks_for() -> None:
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["s3"], *extras["dev"]):
        asked = Requirement(text)
        if canonicalize_name(asked.name) != "ml-platform":
            assert locked()[canonicalize_name(asked.name)] in asked.specifier, text


def test_what_builds_the_project_is_locked_too() -> None:
    assert {"hatchling", "editables", "setuptools"} <= set(locked())
