"""A pipeline that goes on from its champion: which model that is, what is then seen, and that it comes to rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ml_platform.pipeline import Pipeline, WarmStart
from ml_platform.registry.connection import Connection
from ml_platform.settings import Settings
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain
from ml_platform.stages.opening import chain_of, landing_of
from ml_platform.stages.plan import make_plan
from ml_platform.stages.run import Request, run_pipeline
from ml_platform.stages.training_set import TrainingList
from ml_platform.stages.warm import parent_of, seen_by
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import bodies
from ml_platform_tests.tiny_pipeline.data import readings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ml_platform.store import Manifest


@pytest.fixture(scope="module")
def warm(tiny: Pipeline) -> Pipeline:
    return replace(tiny, recipe=replace(tiny.recipe, warm_start=WarmStart(replay=0.2)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny: Pipeline, warm: Pipeline, spark: SparkSession) -> Settings:
    """A home with a champion that learned from lots 1 to 3, and began from nothing."""
    settings = fresh_settings(tmp_path_factory.mktemp("warm") / "home")
    land_samples(tiny, landing_of(settings), keep=lambda lot: lot < "lot-06")
    assert run_pipeline(warm, settings).ok
    return settings


def opened(pipeline: Pipeline, settings: Settings) -> Chain:
    return chain_of(stages_of(pipeline), settings)


def published(pipeline: Pipeline, settings: Settings, stage: str = "trained_model") -> Manifest:
    found = opened(pipeline, settings).settled(stage, [""])[""]
    assert not isinstance(found, str), found
    return found


def nothing_to_do(pipeline: Pipeline, settings: Settings) -> bool:
    chain = opened(pipeline, settings)
    chain.planning = True
    return not any(stage.to_do for stage in make_plan(chain))


@pytest.mark.slow
def test_a_warm_pipeline_from_its_first_model_to_a_rollback(tiny: Pipeline, warm: Pipeline, place: Settings) -> None:
    first = published(warm, place)
    assert first.facts["warm_start"] == {"cold": "there is no champion yet", "warm": False}
    assert nothing_to_do(warm, place)
    assert run_pipeline(tiny, place).ok
    assert published(tiny, place).fingerprint == first.fingerprint, "a cold start is the same whatever was asked for"

    landing_of(place).put(tiny, "readings", "lot-06", readings(5), "csv")
    summary = run_pipeline(warm, place)
    assert summary.ok
    assert bodies(summary)["trained_model"] == 1
    second = published(warm, place)
    told = second.facts["warm_start"]
    assert told["warm"]
    assert (told["fingerprint"], told["data_version"]) == (first.fingerprint, first.data_version)
    assert told["new"] == ["lot-04"]
    assert len(told["replayed"]) == 1
    assert told["replayed"][0] in ("lot-01", "lot-02", "lot-03")
    assert second.inputs["champion"] == first.data_version
    chain = opened(warm, place)
    seen = seen_by(chain.store, second)
    assert seen is not None
    assert list(seen) == ["lot-01", "lot-02", "lot-03", "lot-04"]
    assert "1 new batches, 1 seen again" in str(chain.stages["trained_model"].metadata(chain, second)["warm start"])
    client = Connection(place.mlflow).client
    standing = client.get_model_version_by_alias("tiny", "champion")
    assert first.data_version in standing.tags["ml_platform.warm_start"]
    assert (
        client.get_run(standing.run_id).data.tags["ml_platform.warm_start"] == standing.tags["ml_platform.warm_start"]
    )

    # Now it is the champion itself, and that changes nothing.
    assert nothing_to_do(warm, place)
    assert bodies(run_pipeline(warm, place)) == {}

    # The same parent and batches give the same bytes.
    forced = run_pipeline(warm, place, Request(select=["trained_model"], force=True))
    assert bodies(forced) == {"trained_model": 1}
    assert published(warm, place).data_version == second.data_version

    # A person goes back to the first version: nothing is trained until there is something to learn.
    client.set_registered_model_alias("tiny", "champion", "1")
    assert nothing_to_do(warm, place)
    assert bodies(run_pipeline(warm, place)) == {}
    assert client.get_model_version_by_alias("tiny", "champion").version == 1
    landing_of(place).put(tiny, "readings", "lot-07", readings(6), "csv")
    assert run_pipeline(warm, place).ok
    third = published(warm, place)
    assert third.inputs["champion"] == first.data_version, "the champion of that moment"
    assert third.facts["warm_start"]["new"] == ["lot-04", "lot-05"]
    assert nothing_to_do(warm, place)
    _has_the_right_parent(warm, place, third)


def _has_the_right_parent(warm: Pipeline, place: Settings, latest: Manifest) -> None:
    chain = opened(warm, place)
    listed = TrainingList.load(chain.store, published(warm, place, "training_set"))
    again = parent_of(chain, listed.train, ())
    assert again["fingerprint"] == latest.facts["warm_start"]["fingerprint"], "frozen anew it has the same parent"
    unseen = [*listed.train, replace(listed.train[0], batch="lot-08")]
    assert parent_of(chain, unseen, ())["fingerprint"] == latest.fingerprint
    older = parent_of(chain, unseen, ["lot-05"])
    assert older["fingerprint"] == latest.facts["warm_start"]["fingerprint"], "the one before lot-05"
    assert "lot-01, which is refused now" in parent_of(chain, unseen, ["lot-01"])["cold"]
