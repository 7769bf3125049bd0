"""A batch may be taken without a source that is not required, and again when that lands after all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from ml_platform.errors import DeclarationError
from ml_platform.gates.absent import absent
from ml_platform.pipeline import Pipeline, Source
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.run import Request, plan_pipeline, run_pipeline
from ml_platform_tests.conftest import land_samples

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HERE = "ml_platform_tests.stages.optional_features"
STAGES = ["raw_batch", "validated_batch", "features"]


@pytest.fixture
def optional(tiny: Pipeline) -> Pipeline:
    orders = Source(name="orders", schema=f"{HERE}:Orders", format="csv", required=False)
    features = replace(tiny.features, function=f"{HERE}:build", numeric=("load", "vibration", "pieces"), lookback=0)
    return replace(tiny, sources=(*tiny.sources, orders), features=features, sample_data=None)


def pieces(pipeline: Pipeline, settings: Settings) -> dict[str, set[Any]]:
    """What features say of `pieces`, by batch."""
    chain = chain_of(stages_of(pipeline), settings)
    found = {}
    for batch, status in chain.statuses("features").items():
        assert status.manifest is not None, status.reason
        files = [chain.store.path(file) for file in status.manifest.files if file.name.startswith("part")]
        found[batch] = set(pl.read_parquet(files)["pieces"].to_list())
    return found


def test_a_batch_without_it_has_no_rows_of_it_until_it_lands(
    optional: Pipeline, tiny: Pipeline, settings: Settings, spark: SparkSession
) -> None:
    landing = landing_of(settings)
    land_samples(tiny, landing, keep=lambda batch: batch < "lot-03")
    ordered = b"machine,pieces\npress,7\nlathe,7\nsaw,7\n"
    landing.put(optional, "orders", "lot-02", ordered, "csv")
    assert not run_pipeline(optional, settings, Request(select=STAGES)).problems
    assert pieces(optional, settings) == {"lot-01": {None}, "lot-02": {7}}
    chain = chain_of(stages_of(optional), settings)
    validated = chain.statuses("validated_batch")
    assert validated["lot-01"].manifest is not None
    assert validated["lot-01"].manifest.facts["absent"] == ["orders"]
    assert validated["lot-01"].manifest.facts["rows"]["orders"] == 0
    landing.put(optional, "orders", "lot-01", ordered.replace(b"7", b"9"), "csv")
    assert not run_pipeline(optional, settings, Request(select=STAGES)).problems
    assert pieces(optional, settings) == {"lot-01": {9}, "lot-02": {7}}
    (Path(settings.landing) / "tiny" / "orders" / "lot-01.csv").unlink()
    planned = {plan.name: plan for plan in plan_pipeline(optional, settings, Request(select=STAGES))}
    assert planned["raw_batch"].fresh == ["lot-01", "lot-02"], "the archive has what is gone"
    assert pieces(optional, settings) == {"lot-01": {9}, "lot-02": {7}}
    forced = run_pipeline(optional, settings, Request(select=["raw_batch"], force=True))
    assert not forced.problems
    assert pieces(optional, settings) == {"lot-01": {9}, "lot-02": {7}}


def test_the_required_source_is_waited_for(optional: Pipeline, settings: Settings) -> None:
    landing_of(settings).put(optional, "orders", "lot-01", b"machine,pieces\nsaw,1\n", "csv")
    status = chain_of(stages_of(optional), settings).statuses("raw_batch")["lot-01"]
    assert "readings has not landed" in status.reason


def test_its_columns_must_be_known_without_a_file(optional: Pipeline, tmp_path: Any) -> None:
    loose = replace(optional.sources[1], schema=f"{HERE}:LooseOrders")
    with pytest.raises(DeclarationError, match="must be known without a file"):
        absent(loose, tmp_path / "orders.parquet", "lot-01")


def test_one_source_is_required(tiny: Pipeline) -> None:
    with pytest.raises(DeclarationError, match="at least one source that is required"):
        replace(tiny, sources=(replace(tiny.sources[0], required=False),))
