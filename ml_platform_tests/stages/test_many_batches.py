"""The planner at 1, 99, 100, 101, 365 and 10,000 batches: Dagster alone changes its mind at 100.

Bodies are trivial, everything around them is real: the chain's job, the store, what is published, the planner, and the
training set that freezes the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ml_platform.errors import RefusedError
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings
from ml_platform.stages.assets import build_chain_job
from ml_platform.stages.chain import Chain, State
from ml_platform.stages.features import Features
from ml_platform.stages.opening import chain_of
from ml_platform.stages.outcome import stages_done
from ml_platform.stages.plan import StagePlan, make_plan
from ml_platform.stages.raw_batch import RawBatch
from ml_platform.stages.resources import build_resources
from ml_platform.stages.stage import Bench, CheckResult, Outcome, Stage, Work
from ml_platform.stages.training_set import TrainingList, TrainingSet
from ml_platform.stages.validated_batch import ValidatedBatch
from ml_platform.stages.withdrawing import restore, withdraw
from ml_platform.store import Store, layout
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash
from ml_platform_tests.conftest import fresh_settings

BAD = "bad"


@dataclass
class World:
    """What has landed, by batch: a text in place of a file."""

    landed: dict[str, str] = field(default_factory=dict)
    bodies: list[tuple[str, str]] = field(default_factory=list)


class _Trivial(Stage):
    world: World

    def code(self) -> CodeVersion:
        return code_version((), params={"stage": self.name})

    def metadata(self, chain: Chain, manifest: object) -> dict[str, object]:
        return {}

    def _outcome(self, bench: Bench, work: Work, content: str, **more: object) -> Outcome:
        self.world.bodies.append((self.name, work.batch))
        path = bench.scratch / short_hash(work.batch)
        path.write_text(content)
        files: Mapping[str, Path] = {"part-00000.parquet": path}
        return Outcome(batch=work.batch, data_version=short_hash(content), files=files, **more)  # type: ignore[arg-type]


class Raw(_Trivial, RawBatch):
    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        there = self.world.landed
        return {b: {f"landing/{b}": short_hash(there[b])} if b in there else f"{b} has not landed" for b in batches}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        yield from (self._outcome(bench, work, self.world.landed[work.batch]) for work in works)


class Validated(_Trivial, ValidatedBatch):
    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        for work in works:
            content = self.world.landed[work.batch]
            bad = content.startswith(BAD)
            facts = {"rows": {"readings": 1}, "columns": {}}
            yield self._outcome(bench, work, content, rejected="bad values" if bad else "", gated=True, facts=facts)


class Made(_Trivial, Features):
    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        for work in works:
            yield self._outcome(bench, work, self.world.landed[work.batch], facts={"rows": 1, "columns": []})


class Listed(TrainingSet):
    """The real one, but for the look at the rows."""

    def _looked_at(self, store: Store, listed: TrainingList) -> list[CheckResult]:
        return [CheckResult(name=check.name, passed=True) for check in self.checks()[1:]]


class Place:
    """A home with trivial stages in front of the real training set."""

    def __init__(self, pipeline: Pipeline, settings: Settings, count: int) -> None:
        features = replace(pipeline.features, lookback=0)
        self.pipeline, self.settings = replace(pipeline, features=features), settings
        self.world = World({f"lot-{number:05d}": f"content {number}" for number in range(count)})

    def stages(self) -> dict[str, Stage]:
        found: dict[str, Stage] = {}
        for kind in (Raw, Validated, Made):
            stage = kind(self.pipeline)
            stage.world = self.world
            found[stage.name] = stage
        return {**found, "training_set": Listed(self.pipeline)}

    def chain(self) -> Chain:
        chain = chain_of(self.stages(), self.settings)
        # What is landed is not in files here.
        chain.landed = lambda: set(self.world.landed)  # type: ignore[method-assign]
        return chain

    def plan(self) -> dict[str, StagePlan]:
        chain = self.chain()
        chain.planning = True
        return {stage.name: stage for stage in make_plan(chain)}

    def run(self, stages: Sequence[str] | None = None) -> dict[str, int]:
        """Carry the chain out, or some stages of it. Returns how many bodies each stage ran."""
        self.world.bodies.clear()
        with pytest.MonkeyPatch.context() as patch, prepare_instance(self.settings) as instance:
            patch.setattr(Chain, "landed", lambda chain: set(self.world.landed))
            result = build_chain_job(self.stages()).execute_in_process(
                instance=instance,
                resources=build_resources(self.settings),
                run_config={"console": "CRITICAL", "stages": stages},
                raise_on_error=False,
            )
            run = instance.get_run_by_id(result.run_id)
            assert run is not None
            return {stage.name: stage.built + stage.rejected for stage in stages_done(run) if stage.name}

    def bodies(self) -> list[tuple[str, str]]:
        return sorted(self.world.bodies)


def to_do(plan: Mapping[str, StagePlan]) -> dict[str, list[str]]:
    return {name: sorted([*stage.build, *stage.may]) for name, stage in plan.items() if stage.to_do}


@pytest.mark.parametrize(
    "count", [5, 99, 100, 101, 365, pytest.param(10_000, marks=pytest.mark.slow)], ids=lambda count: f"{count}"
)
def test_each_change_of_one_batch_makes_that_batch_and_the_training_set_stale(
    tiny: Pipeline, tmp_path: Path, count: int
) -> None:
    place = Place(tiny, fresh_settings(tmp_path / "home"), count)
    lots = list(place.world.landed)
    one = lots[count // 2]
    everything = {"raw_batch": lots, "validated_batch": lots, "features": lots, "training_set": [""]}
    assert to_do(place.plan()) == everything
    place.run()
    assert len(place.world.bodies) == 3 * count
    assert to_do(place.plan()) == {}

    chain_of_one = {"raw_batch": [one], "validated_batch": [one], "features": [one], "training_set": [""]}

    place.world.landed[one] = "other content"  # it lands again
    assert to_do(place.plan()) == chain_of_one
    place.run()
    assert place.bodies() == [("features", one), ("raw_batch", one), ("validated_batch", one)]
    assert to_do(place.plan()) == {}

    place.world.landed[one] = f"{BAD} content"  # it is rejected from now on
    place.run()
    assert place.bodies() == [("raw_batch", one), ("validated_batch", one)]
    assert set(place.plan()["validated_batch"].rejected) == {one}
    assert to_do(place.plan()) == {}
    with_a_rejected = place.chain().statuses("training_set")[""].manifest
    assert with_a_rejected is not None
    assert set(with_a_rejected.facts["left_out"]) == {one}

    place.world.landed[one] = "other content"  # and is mended: everything is known from before
    # Of a rejected batch nothing was published: what stood before stands again, and the gate says so once more.
    known = {name: stage.known for name, stage in place.plan().items() if stage.known}
    assert known == {"raw_batch": [one], "validated_batch": [one], "training_set": [""]}
    place.run()
    assert place.bodies() == []
    assert to_do(place.plan()) == {}

    place.world.landed["lot-99999"] = "a new one"
    assert to_do(place.plan()) == {
        "raw_batch": ["lot-99999"],
        "validated_batch": ["lot-99999"],
        "features": ["lot-99999"],
        "training_set": [""],
    }
    place.run()
    assert place.bodies() == [(stage, "lot-99999") for stage in ("features", "raw_batch", "validated_batch")]
    chain = place.chain()
    for stage in chain.stages:
        assert {status.state for status in chain.statuses(stage).values()} == {State.FRESH}, stage


def test_one_batch_alone_is_no_training_set(tiny: Pipeline, tmp_path: Path) -> None:
    place = Place(tiny, fresh_settings(tmp_path / "home"), 1)
    place.run()
    assert len(place.world.bodies) == 3
    plan = place.plan()
    assert to_do(plan) == {}
    assert "no rows in `train`" in plan["training_set"].rejected[""].reason


def test_a_withdrawn_batch_makes_the_training_set_stale_and_nothing_else(tiny: Pipeline, tmp_path: Path) -> None:
    place = Place(tiny, fresh_settings(tmp_path / "home"), 6)
    one, other = "lot-00002", "lot-00003"
    place.run()
    whole = training_set(place)

    given = withdraw(place.chain(), one, by="Ada", reason="asked to delete it")
    plan = place.plan()
    assert to_do(plan) == {"training_set": [""]}
    assert list(map(str, plan["training_set"].causes)) == [f"batch {one} is now withdrawn"]
    said = f"batch {one} is withdrawn by Ada: asked to delete it"
    assert {name: stage.withdrawn for name, stage in plan.items() if stage.withdrawn} == {
        "validated_batch": {one: said},
        "features": {one: said},
    }
    refused = place.chain().settled("training_set", [""])[""]
    assert isinstance(refused, str), "nobody trains on it, not even by hand"
    assert said in refused
    assert place.run()["training_set"] == 1
    assert place.bodies() == []
    assert to_do(place.plan()) == {}
    without = training_set(place)
    assert without.facts["left_out"] == {one: said}
    assert without.facts["withdrawn"] == {one: given.id}
    assert f"features/{one}" not in without.inputs

    place.world.landed[one] = "it lands again"
    assert to_do(place.plan()) == {"raw_batch": [one]}, "the archive goes on"
    place.run()
    assert place.bodies() == [("raw_batch", one)]
    place.world.landed[one] = "content 2"
    place.run()

    restore(place.chain(), one, by="Bo", reason="another was meant")
    assert {name: stage.known for name, stage in place.plan().items() if stage.to_do} == {"training_set": [""]}
    assert place.run()["training_set"] == 0
    assert place.bodies() == []
    assert training_set(place).fingerprint == whole.fingerprint
    with pytest.raises(RefusedError, match=r"(?s)not withdrawn.*revoked by Bo"):
        restore(place.chain(), one, by="Bo", reason="once more")

    withdraw(place.chain(), other, by="Ada", reason="that one")
    place.run()
    restore(place.chain(), other, by="Ada", reason="neither")
    withdraw(place.chain(), other, by="Bo", reason="that one after all")
    assert list(map(str, place.plan()["training_set"].causes)) == [f"batch {other} is withdrawn anew"]
    place.run()
    assert "by Bo" in training_set(place).facts["left_out"][other], "it says who has taken it out now"


def test_batches_that_look_back_on_a_withdrawn_one_no_longer_do(tiny: Pipeline, tmp_path: Path) -> None:
    place = Place(tiny, fresh_settings(tmp_path / "home"), 4)
    place.pipeline = replace(place.pipeline, features=replace(place.pipeline.features, lookback=1))
    place.run()
    withdraw(place.chain(), "lot-00001", by="Ada", reason="asked to")
    assert to_do(place.plan()) == {"features": ["lot-00002"], "training_set": [""]}
    place.run()
    assert place.bodies() == [("features", "lot-00002")]
    restore(place.chain(), "lot-00001", by="Ada", reason="another was meant")
    place.run()
    assert place.bodies() == []
    assert to_do(place.plan()) == {}


def test_what_cannot_be_withdrawn_is_said(tiny: Pipeline, tmp_path: Path) -> None:
    place = Place(tiny, fresh_settings(tmp_path / "home"), 2)
    with pytest.raises(RefusedError, match="no such batch"):
        withdraw(place.chain(), "lot-99999", by="Ada", reason="asked to")
    with pytest.raises(RefusedError, match="says why"):
        withdraw(place.chain(), "lot-00001", by="Ada", reason=" ")
    withdraw(place.chain(), "lot-00001", by="Ada", reason="asked to")
    with pytest.raises(RefusedError, match=r"(?s)withdrawn already.*Ada"):
        withdraw(place.chain(), "lot-00001", by="Bo", reason="asked to")


def test_a_batch_stays_out_where_the_record_of_it_is_damaged(tiny: Pipeline, tmp_path: Path) -> None:
    place = Place(tiny, fresh_settings(tmp_path / "home"), 2)
    chain = place.chain()
    withdraw(chain, "lot-00001", by="Ada", reason="asked to")
    restore(place.chain(), "lot-00001", by="Ada", reason="no")
    assert not place.chain().withdrawals.holding()
    (folder,) = {Path(path).parent for path in chain.store.records(layout.withdrawals(tiny.name))}
    record = sorted((Path(place.settings.store) / folder).iterdir())[-1]
    record.write_text("{}")
    assert "damaged" in place.chain().statuses("validated_batch", ["lot-00001"])["lot-00001"].reason
    with pytest.raises(RefusedError, match="damaged"):
        restore(place.chain(), "lot-00001", by="Ada", reason="no")


def training_set(place: Place) -> Manifest:
    manifest = place.chain().statuses("training_set")[""].manifest
    assert manifest is not None
    return manifest
