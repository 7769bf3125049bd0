"""The reasons that `plan` gives: which batch, which landed file, which version, and what is behind them.

The bodies are trivial ones; everything that reasons are told from is real.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ml_platform.pipeline import Pipeline
from ml_platform.stages.cost import Cost, cost_of, duration, total
from ml_platform.stages.plan import StagePlan, make_plan
from ml_platform.store.manifest import Manifest
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.stages.test_many_batches import Place

BATCH_STAGES = ["raw_batch", "validated_batch", "features"]
LOTS = [f"lot-{number:05d}" for number in range(6)]


@pytest.fixture
def place(tiny: Pipeline, tmp_path: Path) -> Place:
    """Six batches, run once through to the training set."""
    place = Place(tiny, fresh_settings(tmp_path / "home"), len(LOTS))
    place.run()
    return place


def why(plan: StagePlan) -> list[str]:
    return [str(cause) for cause in plan.causes]


def test_the_training_sets_batches_are_named_as_they_come_change_and_go(place: Place) -> None:
    landed = place.world.landed
    landed["lot-77777"] = "new"
    landed[LOTS[1]] = "other"
    place.run(BATCH_STAGES)
    (new, changed) = sorted(why(place.plan()["training_set"]))
    assert new == "batch lot-77777 is new"
    assert changed.startswith(f"features of {LOTS[1]} has new data (")
    assert "landed again with other content" in changed, "down to the landed file"
    place.run()

    landed[LOTS[1]] = "bad"
    place.run(BATCH_STAGES)
    plan = place.plan()
    assert why(plan["training_set"]) == [f"batch {LOTS[1]} is now rejected"]
    assert plan["validated_batch"].rejected[LOTS[1]].reason == "bad values"
    place.run()

    landed[LOTS[1]] = "good again"
    landed.update(dict.fromkeys(["lot-88888", *LOTS[2:]], "all the same"))
    place.run(BATCH_STAGES)
    causes = place.plan()["training_set"].causes
    told = sorted(str(cause).partition(" (")[0] for cause in causes)
    assert told == [
        "batch lot-00001 is now accepted",
        "batch lot-88888 is new",
        "features of lot-00002, lot-00003, lot-00004 and 1 more have new data",
    ]
    assert ("lot-00002", "lot-00003", "lot-00004", "lot-00005") in [cause.batches for cause in causes]


def test_a_version_set_by_hand_makes_stale_and_back_costs_nothing(place: Place) -> None:
    declared = place.pipeline
    place.pipeline = replace(declared, versions={"features": "2"})
    plan = place.plan()
    assert why(plan["features"]) == ["version set by hand: none -> 2"]
    assert plan["features"].causes[0].count == len(LOTS)
    assert plan["features"].stale == LOTS
    assert plan["training_set"].waits_for == ["features"]
    assert [str(root) for root in plan["training_set"].roots] == ["features: version set by hand: none -> 2"]
    assert plan["validated_batch"].fresh == LOTS

    both = replace(declared, versions={"features": "2", "training_set": "1"})
    place.pipeline = both
    assert why(place.plan()["training_set"]) == ["version set by hand: none -> 1"], "known, whatever comes from above"

    place.run()
    place.pipeline = declared
    plan = place.plan()
    assert not any(stage.build or stage.may for stage in plan.values())


def test_another_machine_is_told_the_same_from_the_store_alone(place: Place, tmp_path: Path) -> None:
    there = Place(place.pipeline, fresh_settings(tmp_path / "other", store=place.settings.store), len(LOTS))
    assert there.plan()["features"].known == LOTS
    there.pipeline = replace(there.pipeline, versions={"raw_batch": "2"})
    plan = there.plan()
    assert why(plan["raw_batch"]) == ["version set by hand: none -> 2"]
    assert (plan["raw_batch"].stale, plan["raw_batch"].missing) == (LOTS, [])


def test_what_is_lost_is_said_to_be(place: Place) -> None:
    manifests = Path(place.settings.store) / "manifests" / "tiny" / "features"
    shutil.rmtree(manifests)
    plan = place.plan()["features"]
    assert why(plan) == ["its artifact is damaged or was removed"]
    assert (plan.stale, plan.missing) == (LOTS, [])


def test_a_plan_is_for_the_batches_that_are_asked_for(place: Place) -> None:
    for lot in LOTS[:3]:
        place.world.landed[lot] = "other"
    chain = place.chain()
    chain.planning = True
    plan = {stage.name: stage for stage in make_plan(chain, LOTS[2:4])}
    assert (plan["raw_batch"].stale, plan["raw_batch"].fresh) == ([LOTS[2]], [LOTS[3]])
    assert plan["features"].may == [LOTS[2]]
    assert plan["training_set"].may == [""]


def test_what_is_forced_is_built_again(place: Place) -> None:
    chain = place.chain()
    chain.planning = True
    plan = {stage.name: stage for stage in make_plan(chain, LOTS[:2], forced=["features"])}
    assert plan["features"].stale == LOTS[:2]
    assert why(plan["features"]) == ["asked for"]
    assert plan["features"].cost is not None
    assert plan["validated_batch"].fresh == LOTS[:2]


def _trained(seconds: float, device: str, processes: int) -> Manifest:
    return Manifest(
        pipeline="p",
        stage="trained_model",
        batch="",
        fingerprint="f",
        code_version="c",
        data_version="d",
        inputs={},
        files=(),
        facts={"history": {"topology": {"device": device, "processes": processes}}},
        seconds=seconds,
    )


def test_hours_of_a_gpu_are_counted_for_each_process() -> None:
    assert cost_of([]) is None
    assert cost_of([_trained(1800, "cpu", 4)]) == Cost(1800, 0)
    assert cost_of([_trained(1800, "NVIDIA H200", 4), _trained(3600, "NVIDIA H200", 4)]) == Cost(2700, 3.0)
    assert total([Cost(1, 2), None, Cost(3, 4)]) == Cost(4, 6)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.04, "0.1 s"),
        (4.26, "4.3 s"),
        (45.2, "45 s"),
        (190, "3 min 10 s"),
        (180, "3 min"),
        (3599.8, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
