"""`plan --diff`: what a pull request makes stale, told from the code alone, in a repository of a team's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ml_platform
import ml_platform_tests.tiny_pipeline as tiny_package
from ml_platform.errors import SetupError
from ml_platform.versions.revision import laid_out

INSTALLED = str(Path(ml_platform.__file__).parent.parent)


class Repository:
    """A team's git repository with one pipeline in it, `src/acme`, and a home that there is not yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "repository", folder / "home"
        self.package = self.folder / "src" / "acme"
        shutil.copytree(Path(tiny_package.__file__).parent, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        (self.folder / "pyproject.toml").touch()
        (self.folder / ".gitattributes").write_text("features.py export-ignore\n")
        self.edit("pipeline.py", "ml_platform_tests.tiny_pipeline", "acme")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        done = subprocess.run(["git", *identity, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "Work")

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.package / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def run(self, *words: str, pipelines: str = "acme") -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(self.home),
            "ML_PLATFORM_PIPELINES": pipelines,
            "PYTHONPATH": os.pathsep.join(["src", INSTALLED]),
            "COLUMNS": "160",
        }
        command = [sys.executable, "-m", "ml_platform.cli", *words]
        return subprocess.run(command, cwd=self.folder, env=environment, check=False, capture_output=True, text=True)

    def diff(self, revision: str = "main", pipelines: str = "acme") -> dict[str, Any]:
        """What `--json` prints, by pipeline; checks that the exit code agrees."""
        done = self.run("plan", "--diff", revision, "--json", pipelines=pipelines)
        assert done.stdout, done.stderr
        record = json.loads(done.stdout)
        assert record["schema"] == 1
        assert done.returncode == (2 if record["differs"] else 0)
        return {pipeline["name"]: pipeline for pipeline in record["pipelines"]}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_it_names_the_function_and_the_parameter_that_make_stages_stale(repository: Repository) -> None:
    repository.edit("features.py", 'F.max("vibration")', 'F.min("vibration")')
    repository.edit("pipeline.py", "epochs=12", "epochs=13")
    repository.edit("schema.py", "What a good lot", "What a very good lot")
    found = repository.diff()
    stages = {stage["name"]: stage for stage in found["tiny"]["stages"]}
    assert {name: stage["state"] for name, stage in stages.items()} == {
        "raw_batch": "same",
        "validated_batch": "same",
        "features": "stale",
        "training_set": "may",
        "baseline": "may",
        "trained_model": "stale",
        "evaluation": "may",
        "registered_model": "may",
    }
    (cause,) = stages["features"]["causes"]
    assert (cause["name"], cause["part"]) == ("src/acme/features.py", "function build")
    (cause,) = stages["trained_model"]["causes"]
    assert (cause["name"], cause["before"], cause["now"]) == ("recipe.epochs", 12, 13)
    assert stages["features"]["artifacts"] is None
    assert not repository.home.exists(), "to look at code needs no home"
    assert repository.git("status", "--short", "--untracked-files=no").split() == [
        "M",
        "src/acme/features.py",
        "M",
        "src/acme/pipeline.py",
        "M",
        "src/acme/schema.py",
    ]
    assert repository.git("worktree", "list").count("\n") == 1
    told = repository.run("plan", "--diff", "main", "tiny")
    assert "src/acme/features.py: function build changed" in told.stdout
    assert "parameter recipe.epochs: 12 -> 13" in told.stdout
    assert "nyc_flights" not in told.stdout
    repository.commit()
    assert repository.diff("main")["tiny"]["change"] == "same"


def test_a_pipeline_in_a_repository_of_its_own_is_compared_there_or_said_not_to_be(
    repository: Repository, tmp_path: Path
) -> None:
    platform = tmp_path / "platform"
    shutil.copytree(INSTALLED + "/ml_platform", platform / "ml_platform", ignore=shutil.ignore_patterns("__pycache__"))
    repository.git("-C", str(platform), "init", "--quiet", "--initial-branch=main")
    repository.git("-C", str(platform), "add", ".")
    repository.git("-C", str(platform), "commit", "--quiet", "--message", "Platform")
    environment = {
        **os.environ,
        "ML_PLATFORM_HOME": str(repository.home),
        "ML_PLATFORM_PIPELINES": "acme",
        "PYTHONPATH": os.pathsep.join([str(platform), str(repository.package.parent)]),
    }

    def told(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "ml_platform.cli", "plan", *words]
        done = subprocess.run(command, cwd=platform, env=environment, check=False, capture_output=True, text=True)
        return done.returncode, done.stdout or done.stderr

    repository.edit("features.py", 'F.max("vibration")', 'F.min("vibration")')
    code, text = told("--diff", "main", "--json")
    changes = {each["name"]: each["change"] for each in json.loads(text)["pipelines"]}
    assert (code, changes) == (2, {"nyc_flights": "same", "tiny": "changed"}), "each with its repository's own main"
    repository.git("branch", "--move", "main", "trunk")
    assert told("--diff", "main")[0] == 0
    code, text = told("--diff", "main", "tiny")
    assert (code, "tiny: not compared" in text, "the same" in text) == (1, True, False)
    code, text = told("--diff", "trunk", "tiny", "--json")
    assert (code, json.loads(text)["pipelines"][0]["change"]) == (2, "changed")
    code, text = told("--diff", "")
    assert (code, "names no revision" in text) == (2, True)


def test_with_data_it_counts_the_batches(repository: Repository) -> None:
    assert repository.run("land", "tiny").returncode == 0
    repository.edit("features.py", 'F.max("vibration")', 'F.min("vibration")')
    stages = {stage["name"]: stage for stage in repository.diff()["tiny"]["stages"]}
    assert (stages["features"]["artifacts"], stages["features"]["cost"]) == (6, None)
    assert stages["training_set"]["artifacts"] == 1


def test_pipelines_that_come_and_go_are_said(repository: Repository) -> None:
    other = repository.folder / "src" / "other"
    shutil.copytree(repository.package, other, ignore=shutil.ignore_patterns("__pycache__"))
    (other / "pipeline.py").write_text((other / "pipeline.py").read_text().replace('name="tiny"', 'name="other"'))
    repository.edit("pipeline.py", 'name="tiny"', 'name="small"')
    found = repository.diff(pipelines="acme,other")
    assert {name: pipeline["change"] for name, pipeline in found.items() if name != "nyc_flights"} == {
        "other": "added",
        "small": "added",
        "tiny": "removed",
    }


def test_a_revision_that_does_not_import_is_refused(repository: Repository) -> None:
    repository.edit("pipeline.py", "PIPELINE = ", "PIPELINE = = ")
    repository.commit()
    repository.edit("pipeline.py", "PIPELINE = = ", "PIPELINE = ")
    broken = repository.run("plan", "--diff", "main")
    assert broken.returncode == 2
    assert "The revision's pipelines cannot be read" in broken.stderr
    assert "acme.pipeline" in broken.stderr


def test_what_is_no_revision_is_refused_in_words(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository.package)
    for name in ("no-such-branch", "--all", ""):
        with pytest.raises(SetupError, match=r"(?s)no such revision.*fetch it first"), laid_out(name):
            pass
    with laid_out("main") as revision:
        assert (revision.folder / "src/acme/features.py").exists(), "also what an archive leaves out"
    assert not revision.folder.exists()
    shutil.rmtree(repository.folder / ".git")
    with pytest.raises(SetupError, match="in no git repository"), laid_out("main"):
        pass


def test_without_git_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="git is not installed"), laid_out("main"):
        pass


def test_a_repository_whose_code_is_not_what_runs_is_refused(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    environment = {**os.environ, "ML_PLATFORM_HOME": str(repository.home), "PYTHONPATH": INSTALLED}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ml_platform.cli", "plan", "--diff", "main"],
        cwd=repository.folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "No folder of the repository is on Python's path" in done.stderr
