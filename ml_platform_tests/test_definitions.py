"""What Dagster loads: the asset graph as reviewed, quickly, with nothing heavy behind it; and which room imports what.

After a wanted change of the graph, write the snapshot anew and review it like code:

    python -m ml_platform_tests.test_definitions
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ml_platform
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE

PACKAGE = Path(ml_platform.__file__).parent
SNAPSHOT = Path(__file__).parent / "snapshots" / "nyc_flights.json"
HEAVY = (
    "torch",
    "mlflow",
    "sklearn",
    "polars",
    "pandera",
    "matplotlib",
    "pandas",
    "s3fs",
    "kubernetes",
)


def graph() -> dict[str, Any]:
    """Every asset of the reference pipeline as plain data."""
    from ml_platform.stages import stages_of
    from ml_platform.stages.assets import build_assets

    found: dict[str, Any] = {}
    for definition in build_assets(stages_of(PIPELINE)):
        for spec in definition.specs:
            found[spec.key.to_user_string()] = {
                "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
                "group": spec.group_name,
                "kinds": sorted(spec.kinds),
                "owners": sorted(spec.owners),
                "tags": {k: v for k, v in sorted(spec.tags.items()) if not k.startswith("dagster/")},
                "description": spec.description,
                "partitions": repr(spec.partitions_def) if spec.partitions_def else None,
                "checks": sorted(c.name for c in definition.check_specs if c.asset_key == spec.key),
            }
    return dict(sorted(found.items()))


def test_the_asset_graph_is_the_one_that_was_reviewed() -> None:
    assert graph() == json.loads(SNAPSHOT.read_text()), "write it anew if that was meant: see the top of this file"


def test_loading_the_definitions_imports_nothing_heavy() -> None:
    code = f"import sys, ml_platform.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


def test_many_pipelines_share_a_code_location() -> None:
    from dataclasses import replace

    from ml_platform.definitions import build_definitions
    from ml_platform.settings import Settings

    defs = build_definitions([PIPELINE, replace(PIPELINE, name="other_flights")], Settings())
    repository = defs.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs()}
    assert {"nyc_flights_chain", "other_flights_chain"} <= jobs


def test_dagsters_own_command_finds_the_definitions_sound(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-m", "ml_platform.definitions"],
        cwd=PACKAGE.parent,
        check=True,
        capture_output=True,
    )


def imports(folder: str) -> Iterator[tuple[Path, str]]:
    """Every import in a folder of the package: (file, top-level package)."""
    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield path, node.module.split(".")[0]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("pipelines", {"dagster"}),
        ("training", {"dagster", "pyspark", "mlflow"}),
        ("evaluation", {"dagster", "pyspark", "mlflow"}),
        ("gates", {"dagster", "torch", "mlflow"}),  # a batch can be judged on Spark
        ("store", {"dagster", "pyspark", "torch", "mlflow"}),
        ("versions", {"dagster", "pyspark", "torch", "mlflow"}),
    ],
)
def test_a_room_keeps_to_its_own(room: str, forbidden: set[str]) -> None:
    assert [f"{path}: {name}" for path, name in imports(room) if name in forbidden] == []


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(json.dumps(graph(), indent=1) + "\n")
