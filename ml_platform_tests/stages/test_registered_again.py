"""A model whose files somebody removed from MLflow's folder comes back with the next run."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ml_platform.stages.run import plan_pipeline, run_pipeline
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.stages.conftest import by_name

if TYPE_CHECKING:
    from pathlib import Path

    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.summary import RunSummary


def test_a_run_uploads_a_model_again_whose_folder_is_gone(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    assert cold.ok
    shutil.copytree(home.home, tmp_path / "home", symlinks=True, ignore=shutil.ignore_patterns("mlflow"))
    settings = fresh_settings(tmp_path / "home")
    assert by_name(run_pipeline(tiny, settings))["registered_model"].built == 1
    shutil.rmtree(settings.home / "mlflow" / "artifacts")
    (found,) = [stage for stage in plan_pipeline(tiny, settings) if stage.to_do]
    assert found.name == "registered_model"
    summary = run_pipeline(tiny, settings)
    assert summary.ok
    assert by_name(summary)["registered_model"].cached == 1

    import mlflow

    mlflow.set_tracking_uri(settings.mlflow)
    try:
        assert mlflow.pyfunc.load_model(f"models:/{tiny.name}@champion").metadata.signature is not None
        assert summary.model is not None
        named = mlflow.MlflowClient().get_model_version_by_alias(tiny.name, "champion")
        assert summary.model.version == str(named.version), "not the one whose files are gone"
        assert summary.model.uri == f"models:/{tiny.name}/{named.version}"
    finally:
        mlflow.set_tracking_uri(None)
    assert not [stage for stage in plan_pipeline(tiny, settings) if stage.to_do]
