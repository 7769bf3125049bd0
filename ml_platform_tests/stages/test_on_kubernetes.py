"""A run of the chain whose model is trained on a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ml_platform.instance import prepare_instance
from ml_platform.settings import KubernetesSettings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.store import layout
from ml_platform_tests.launch.backends import played
from ml_platform_tests.stages.conftest import bodies, key

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.summary import RunSummary


@pytest.mark.slow
def test_a_run_trains_on_a_cluster_and_tells_of_each_epoch(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    longer = replace(tiny, recipe=replace(tiny.recipe, epochs=14))
    with played(tmp_path) as cluster:
        assert cluster.server is not None
        there = KubernetesSettings(
            image="project:1", kubeconfig=str(cluster.server.kubeconfig), store=home.store, poll_seconds=0.2
        )
        settings = home.model_copy(update={"launcher": "kubernetes", "kubernetes": there})
        summary = run_pipeline(longer, settings, Request(select=["trained_model"]))
        jobs = cluster.server.objects.all("jobs")
    assert not summary.problems
    assert bodies(summary) == {"trained_model": 1}
    assert len(jobs) == 1, "it stays with its pods for whoever wants to look"
    chain = chain_of(stages_of(longer), home)
    manifest = chain.settled("trained_model", [""])[""]
    assert not isinstance(manifest, str)
    assert jobs[0]["metadata"]["name"] == f"train-{manifest.fingerprint}"
    assert manifest.facts["restarts"] == 0
    assert manifest.facts["mlflow"]
    assert len(manifest.facts["history"]["epochs"]) == 14
    with prepare_instance(home) as instance:
        seen = instance.fetch_observations(
            dg.AssetRecordsFilter(key(tiny, "trained_model"), storage_ids=None), limit=14
        ).records
    epochs = [record.asset_observation.metadata["epoch"].value for record in seen if record.asset_observation]
    assert sorted(epochs) == list(range(1, 15))
    assert chain.store.records(layout.JOBS) == [], "what the job kept in the store is gone"
    assert bodies(run_pipeline(tiny, home)) == {}, "back at the declared recipe, everything is known"
