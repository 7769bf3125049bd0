"""Features from which no model can learn stop at the training set: nothing is published, and nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ml_platform.instance import prepare_instance
from ml_platform.pipeline import FeatureGate, Pipeline
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.stages.conftest import BATCH_STAGES, bodies, by_name, key

HERE = "ml_platform_tests.stages.unfit_features"


@pytest.mark.parametrize(
    ("function", "said", "check"),
    [
        ("infinite", "Infinite values: load (6 rows)", "finite"),
        ("constant", "load (no value)", "not_constant"),
    ],
)
def test_unfit_features_are_refused_by_column_and_nothing_is_trained(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path, function: str, said: str, check: str
) -> None:
    settings = fresh_settings(tmp_path / "own", store=home.store, landing=home.landing, mlflow=home.mlflow)
    unfit = replace(tiny, features=replace(tiny.features, function=f"{HERE}:{function}"))
    summary = run_pipeline(unfit, settings)
    assert by_name(summary)["training_set"].rejected == 1
    assert said in summary.problems[0]
    assert not {"baseline", "trained_model", "evaluation", "registered_model"} & bodies(summary).keys()
    with prepare_instance(settings) as instance:
        assert not instance.fetch_materializations(key(tiny, "training_set"), limit=1).records
        manifest = chain_of(stages_of(unfit), settings, instance).statuses("training_set")[""].manifest
    assert manifest is not None
    assert [c["name"] for c in manifest.facts["checks"] if not c["passed"] and not c["warn"]] == [check, "no_leakage"]

    if function == "constant":
        allowed = replace(unfit, feature_gate=FeatureGate(may_be_constant=("load",)))
        again = run_pipeline(allowed, settings, Request(select=[*BATCH_STAGES, "training_set"]))
        assert bodies(again) == {"training_set": 1}
        assert by_name(again)["training_set"].built == 1
