"""The connection to MLflow's database survives what befalls the processes that use it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ml_platform.registry.connection import Connection


def test_a_process_that_is_killed_while_it_makes_the_database_leaves_none(tmp_path: Path) -> None:
    """MLflow cannot go on with one whose migrations were cut off."""
    database = tmp_path / "mlflow.db"
    script = f"from ml_platform.registry.connection import Connection; Connection('sqlite:///{database}')"
    maker = subprocess.Popen([sys.executable, "-c", script])
    while not list(tmp_path.glob(".mlflow.db.draft*")):
        assert maker.poll() is None, "it was to be killed half-way"
        time.sleep(0.01)
    time.sleep(0.3)
    maker.kill()
    maker.wait()
    assert not database.exists()
    Connection(f"sqlite:///{database}", patience=0).client.search_registered_models()
    assert [path.name for path in tmp_path.glob(".mlflow.db.draft*")] == []
