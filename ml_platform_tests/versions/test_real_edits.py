"""Over the real pipeline, in a copy of the whole project: which edit makes which stages stale, and which make none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ml_platform

PROJECT = Path(ml_platform.__file__).parent.parent
FLIGHTS = "ml_platform/pipelines/nyc_flights"

PROGRAM = """
import json, sys
from pathlib import Path
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE
from ml_platform.stages import stages_of

def versions():
    return {name: stage.version.value for name, stage in stages_of(PIPELINE).items()}

assert Path("ml_platform").resolve() == Path(sys.modules["ml_platform"].__file__).parent
before, found = versions(), []
for file, old, new in json.load(sys.stdin):
    path = Path(file)
    text = path.read_text() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    assert text is None or old in text, (file, old)
    path.write_text(new if text is None else text.replace(old, new, 1) if old else text + new)
    after = versions()
    found.append([name for name in before if after[name] != before[name]])
    path.unlink() if text is None else path.write_text(text)
assert versions() == before
print(json.dumps(found))
"""

NOTHING: list[tuple[str, str, str]] = [
    ("README.md", "", "More words.\n"),
    ("ml_platform_tests/test_new.py", "", "def test(): ...\n"),
    (f"{FLIGHTS}/README.md", "", "What it is.\n"),
    (f"{FLIGHTS}/notes.csv", "", "1,2\n"),
    (f"{FLIGHTS}/data.py", "", "\nX = 1\n"),
    (f"{FLIGHTS}/features.py", '"""Compute the features.', '"""Compute all of the features.'),
    (f"{FLIGHTS}/features.py", "def build(", "# A comment\ndef build("),
    ("ml_platform/pipelines/churn/pipeline.py", "", "PIPELINE = None\n"),
    ("ml_platform/cli/plan.py", "[bold]Examples[/bold]", "[bold]For example[/bold]"),
    ("ml_platform/cli/plan.py", "", "\nX = 1\n"),
    ("ml_platform/template/features.py.tmpl", "", "\nX = 1\n"),
    ("ml_platform/stages/features.py", "One partition a batch", "One partition for each batch"),
    ("ml_platform/stages/shown.py", "SAMPLE_ROWS = 5", "SAMPLE_ROWS = 6"),
    ("ml_platform/errors.py", "", "\nX = 1\n"),
    ("ml_platform/settings.py", "", "\nX = 1\n"),
    ("ml_platform/definitions.py", "", "\nX = 1\n"),
    ("ml_platform/registry/models.py", "", "\nX = 1\n"),
    ("ml_platform/versions/code.py", "", "\nX = 1\n"),
]

SOMETHING: list[tuple[tuple[str, str, str], set[str]]] = [
    ((f"{FLIGHTS}/features.py", "LATE_MINUTES = 15", "LATE_MINUTES = 20"), {"features"}),
    ((f"{FLIGHTS}/schema.py", "", "\nX = 1\n"), {"validated_batch", "planes"}),
    (("ml_platform/gates/tally.py", "", "\nX = 1\n"), {"validated_batch", "planes"}),
    (("ml_platform/stages/feature_frames.py", "", "\nX = 1\n"), {"features"}),
    (("ml_platform/gates/leakage.py", "", "\nX = 1\n"), {"training_set"}),
    (("ml_platform/training/loop.py", "", "\nX = 1\n"), {"trained_model"}),
    (("ml_platform/evaluation/sanity.py", "", "\nX = 1\n"), {"evaluation"}),
    (("ml_platform/evaluation/metrics.py", "", "\nX = 1\n"), {"baseline", "evaluation"}),
]


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> list[set[str]]:
    """The stages that each edit makes stale, all tried in one process over a copy of the project."""
    copy = tmp_path_factory.mktemp("project")
    unwanted = shutil.ignore_patterns("__pycache__", "*.parquet", "*.csv*", "*.gz")
    shutil.copytree(PROJECT / "ml_platform", copy / "ml_platform", ignore=unwanted)
    edits = [*NOTHING, *(edit for edit, _ in SOMETHING)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        input=json.dumps(edits),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [set(names) for names in json.loads(done.stdout)]


def of(case: object) -> str:
    """Names a test by the file that is edited; a number stands before it."""
    while isinstance(case, tuple):
        case = case[0]
    return str(case)


@pytest.mark.parametrize(("number", "edit"), list(enumerate(NOTHING)), ids=of)
def test_what_is_not_behind_a_result_makes_nothing_stale(
    stale: list[set[str]], number: int, edit: tuple[str, str, str]
) -> None:
    assert stale[number] == set(), edit


@pytest.mark.parametrize(("number", "case"), list(enumerate(SOMETHING, len(NOTHING))), ids=of)
def test_what_is_behind_a_result_makes_its_stages_stale(
    stale: list[set[str]], number: int, case: tuple[tuple[str, str, str], set[str]]
) -> None:
    edit, names = case
    assert stale[number] == names, edit
