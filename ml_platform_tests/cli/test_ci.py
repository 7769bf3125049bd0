"""What deploy/ci holds for other people's CI: every command in it is one that there is, and the quick ones are run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from ml_platform.cli.main import app
from ml_platform.settings import child_environment

ROOT = Path(__file__).parents[2]
CI = ROOT / "deploy" / "ci"
WORKFLOW: dict[str, Any] = yaml.safe_load((CI / "github-actions.yml").read_text())
HOOKS: dict[str, Any] = yaml.safe_load((CI / "pre-commit-config.yaml").read_text())
SAID = ("definitions validate", "test_definitions", "check ", "canary ")
"""What a change has to pass, as a part of some command."""


def commands() -> list[str]:
    """Every command line of the workflow and of the hooks, and those that the README shows."""
    steps = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    found = [line for step in steps for line in step.splitlines()]
    found += [hook["entry"] for repo in HOOKS["repos"] for hook in repo["hooks"]]
    readme = (CI / "README.md").read_text()
    return found + re.findall(r"^    (ml-platform .*?)(?: +#.*)?$", readme, re.MULTILINE)


def test_both_run_everything_that_a_change_has_to_pass() -> None:
    steps = [step.get("run", "") for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    entries = [hook["entry"] for repo in HOOKS["repos"] for hook in repo["hooks"]]
    for said in SAID:
        assert any(said in step for step in steps), said
        assert any(said in entry for entry in entries), said
    assert set(WORKFLOW[True]) == {"pull_request", "push"}, "YAML reads `on` as true"


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("ml-platform ")])
def test_every_command_is_one_that_there_is(line: str) -> None:
    words = shlex.split(line.partition("||")[0].partition(">")[0])[1:]
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    # The hook's files come behind its entry.
    files = ["samples/flights/2013-01-01.parquet"] if words[-1] == "--path" else []
    group.commands[words[0]].make_context(words[0], [*words[1:], *files])


def test_the_hooks_see_the_files_that_they_are_about() -> None:
    hooks = {hook["id"]: hook for repo in HOOKS["repos"] for hook in repo["hooks"]}
    assert re.search(hooks["sample-batches"]["files"], "samples/flights/2013-01-01.parquet")
    assert not re.search(hooks["sample-batches"]["files"], "ml_platform/pipelines/nyc_flights/data/flights.parquet")
    assert re.search(hooks["definitions-load"]["files"], "ml_platform/pipelines/nyc_flights/schema.py")


@pytest.mark.slow
def test_the_steps_of_the_workflow_pass(tmp_path: Path) -> None:
    """As GitHub runs them, in their order; without what needs a pull request, and the tests that run here anyway."""
    shim = tmp_path / "bin"
    shim.mkdir()
    for name, module in (("ml-platform", "ml_platform.cli"), ("python", "")):
        target = f'exec "{sys.executable}" {f"-m {module}" if module else ""} "$@"'
        (shim / name).write_text(f"#!/bin/sh\n{target}\n")
        (shim / name).chmod(0o755)
    environment = child_environment()
    environment |= {name: value for name, value in WORKFLOW["env"].items() if "${{" not in value}
    environment |= {"ML_PLATFORM_HOME": str(tmp_path / "home"), "PATH": f"{shim}:{environment['PATH']}"}
    environment |= {"PYTHONPATH": str(ROOT)}
    passed = []
    for job in WORKFLOW["jobs"].values():
        for step in job["steps"]:
            left_out = (
                step.get("name") == "Install" or "pull_request" in step.get("if", "") or "pytest" in step.get("run", "")
            )
            if "run" in step and not left_out:
                answer = subprocess.run(
                    ["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                assert answer.returncode == 0, f"{step['name']}\n{answer.stdout}\n{answer.stderr}"
                passed.append(step["name"])
    assert len(passed) >= 5
    assert (tmp_path / "gates.xml").read_text().startswith("<?xml")
