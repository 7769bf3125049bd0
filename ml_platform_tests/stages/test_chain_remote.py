"""The batch stages with landing place and store on S3, over HTTP: two homes share what one of them built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages.opening import landing_of, store_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.store.conftest import s3_endpoint, s3_options, s3_url

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["s3_endpoint", "s3_options", "s3_url"]

STAGES = ["raw_batch", "validated_batch", "features", "training_set"]


@pytest.fixture
def remote(s3_url: str, s3_options: dict[str, Any]) -> dict[str, Any]:
    """Settings that name a bucket."""
    return {"store": f"{s3_url}/store", "landing": f"{s3_url}/landing", "storage_options": s3_options}


def test_two_homes_share_a_store_on_s3(
    remote: dict[str, Any], tiny: Pipeline, tmp_path: Path, spark: SparkSession
) -> None:
    first: Settings = fresh_settings(tmp_path / "first", **remote)
    land_samples(tiny, landing_of(first))
    built = run_pipeline(tiny, first, Request(select=STAGES))
    assert built.problems == []
    assert {stage.name: stage.built for stage in built.stages} == dict.fromkeys(STAGES[:3], 6) | {"training_set": 1}

    second = fresh_settings(tmp_path / "second", **remote)
    taken = run_pipeline(tiny, second, Request(select=STAGES))
    assert {stage.name: (stage.built, stage.cached) for stage in taken.stages} == dict.fromkeys(STAGES[:3], (0, 6)) | {
        "training_set": (0, 1)
    }
    for stage in STAGES:
        ours, theirs = (store_of(home).artifacts("tiny", stage) for home in (first, second))
        assert [m.data_version for m in ours] == [m.data_version for m in theirs]
