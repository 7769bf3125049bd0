"""A pipeline with several candidates: each is trained by itself, one model goes on, and only what changed is done."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pytest

from ml_platform.automation import abandoned
from ml_platform.canary import _small
from ml_platform.canary.sample import Sample
from ml_platform.evaluation.candidates import best
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import ModelGate, Pipeline, Recipe
from ml_platform.provenance.card import CARD_FILE
from ml_platform.provenance.declared import as_recorded, replaced
from ml_platform.provenance.record import RECORD_FILE, from_json
from ml_platform.provenance.reproduce import reproduce
from ml_platform.recipe import trains
from ml_platform.registry.connection import Connection
from ml_platform.settings import KubernetesSettings, Settings
from ml_platform.stages import stages_of
from ml_platform.stages.assets import build_assets, build_chain_job
from ml_platform.stages.impact import impact_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.resources import build_resources
from ml_platform.stages.run import Request, plan_pipeline, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform.stages.training_set import TrainingList
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.launch.backends import played
from ml_platform_tests.stages.conftest import bodies, by_name, key

if TYPE_CHECKING:
    from ml_platform.stages.chain import Chain
    from ml_platform.store import Manifest

MEETING = "ml_platform_tests.stages.meeting_models:meeting"
GATE = ModelGate(draws=200, slice_rows=30, champion="off")


def with_candidates(tiny: Pipeline, **recipes: Recipe) -> Pipeline:
    return replace(tiny, recipe=None, candidates=recipes, gates=(), model_gate=GATE)


@pytest.fixture(scope="module")
def recipe(tiny: Pipeline) -> Recipe:
    assert tiny.recipe is not None
    return tiny.recipe


@pytest.fixture(scope="module")
def two(tiny: Pipeline, recipe: Recipe) -> Pipeline:
    """The recipe that is trained already, and one that is hardly trained."""
    return with_candidates(tiny, short=replace(recipe, epochs=1, learning_rate=1e-4, processes=1), long=recipe)


@pytest.fixture(scope="module")
def place(home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home of its own where one recipe was trained, in a registry of its own."""
    assert cold.ok
    folder = tmp_path_factory.mktemp("candidates") / "home"
    shutil.copytree(home.home, folder, symlinks=True, ignore=shutil.ignore_patterns("mlflow"))
    settings = fresh_settings(folder)
    assert run_pipeline(replace(tiny, gates=(), model_gate=GATE), settings).ok
    return settings


def opened(pipeline: Pipeline, settings: Settings) -> Chain:
    return chain_of(stages_of(pipeline), settings)


def published(pipeline: Pipeline, settings: Settings, stage: str = "trained_model") -> Manifest:
    found = opened(pipeline, settings).published_artifact(stage)
    assert found is not None
    return found


def test_each_candidate_is_an_asset_and_trained_model_reads_them_all(two: Pipeline) -> None:
    specs = {spec.key.path[-1]: spec for definition in build_assets(stages_of(two)) for spec in definition.specs}
    above = {name: {dep.asset_key.path[-1] for dep in spec.deps} for name, spec in specs.items()}
    assert above["candidate_short"] == above["candidate_long"] == {"training_set"}
    assert above["trained_model"] == {"training_set", "candidate_short", "candidate_long"}
    assert above["evaluation"] == {"training_set", "baseline", "trained_model"}
    assert specs["candidate_short"].code_version != specs["candidate_long"].code_version
    steps = {node.name for node in build_chain_job(stages_of(two)).graph.nodes}
    assert "candidates" in steps, "one step, in which several are trained at a time"
    assert not any(name.startswith("candidate_") for name in steps)


@pytest.mark.parametrize(
    ("figures", "metric", "name"),
    [
        ({"a": 0.7, "b": 0.8}, "accuracy", "b"),
        ({"a": 0.7, "b": 0.8}, "log_loss", "a"),
        ({"a": 0.8, "b": 0.8}, "accuracy", "a"),
        ({"a": float("nan"), "b": 0.1}, "accuracy", "b"),
        ({"a": float("nan"), "b": 9.0}, "rmse", "b"),
        ({"a": float("nan"), "b": float("nan")}, "accuracy", "a"),
    ],
)
def test_the_best_figure_wins_and_of_equals_the_first(figures: dict[str, float], metric: str, name: str) -> None:
    assert best(figures, metric) == name


def test_from_one_recipe_to_candidates_to_an_average(two: Pipeline, recipe: Recipe, place: Settings) -> None:
    before = published(replace(two, recipe=recipe, candidates={}), place)
    plan = {stage.name: stage for stage in plan_pipeline(two, place)}
    assert [name for name, stage in plan.items() if stage.build and trains(name)] == [
        "candidate_short",
        "candidate_long",
    ]
    assert plan["trained_model"].may

    # The better one is the model that was there before: it is not trained again. (The baseline has another seed now.)
    summary = run_pipeline(two, place)
    assert summary.ok
    trained = {name: count for name, count in bodies(summary).items() if trains(name)}
    assert trained == {"candidate_short": 1, "candidate_long": 1, "trained_model": 1}
    chosen = published(two, place)
    assert chosen.data_version == before.data_version
    assert published(two, place, "candidate_long").run_id == summary.run_id
    assert published(two, place, "candidate_long").facts["history"] == before.facts["history"], "the very same training"
    _tells_all_there_is(two, place, chosen)
    assert not any(stage.to_do for stage in plan_pipeline(two, place))

    # One edited recipe is one training; the same wins, and nothing below runs.
    edited = replace(two, candidates={**two.candidates, "short": replace(two.candidates["short"], seed=8)})
    summary = run_pipeline(edited, place)
    assert summary.ok
    assert bodies(summary) == {"candidate_short": 1, "trained_model": 1}
    assert published(edited, place).data_version == before.data_version
    assert bodies(run_pipeline(two, place)) == {}, "back again, all is known"

    # The average is another model. It is evaluated, registered and loaded like any other.
    averaged = replace(two, choose="average")
    summary = run_pipeline(averaged, place)
    assert summary.ok
    assert bodies(summary) == {"trained_model": 1, "evaluation": 1, "registered_model": 1}
    assert summary.model is not None
    _is_the_mean(averaged, place, summary)
    found = impact_of(opened(averaged, place), "lot-02")
    assert {"candidate_short", "candidate_long", "trained_model"} <= found.artifacts.keys()
    assert [version.version for version in found.versions][-1] == summary.model.version


def _tells_all_there_is(two: Pipeline, place: Settings, chosen: Manifest) -> None:
    assert chosen.inputs.keys() == {"training_set", "candidate_short", "candidate_long"}
    table = chosen.facts["candidates"]
    assert (table["chosen"], table["metric"]) == ("long", "accuracy")
    short, long = table["rows"]
    assert short["accuracy"] < long["accuracy"]
    assert short["gain"] == pytest.approx(short["accuracy"] - long["accuracy"])
    assert short["gain_low"] <= short["gain"] <= short["gain_high"] < 0
    assert long["low"] <= long["accuracy"] <= long["high"]
    assert short["seconds"] > 0
    chain = opened(two, place)
    shown = chain.stages["trained_model"].metadata(chain, chosen)
    assert [record.data["candidate"] for record in shown["candidates"].records] == ["short", "long"]
    connection = Connection(place.mlflow)
    runs = connection.client.search_runs(
        [connection.experiment("tiny")], filter_string="tags.`ml_platform.candidate` = 'short'"
    )
    assert runs[0].data.metrics["accuracy"] == short["accuracy"]
    assert runs[0].data.params["epochs"] == "1"
    above = connection.client.get_run(runs[0].data.tags["mlflow.parentRunId"])
    assert above.data.metrics["candidate_short_accuracy"] == short["accuracy"]
    assert above.data.params["candidate"] == "long"


def _is_the_mean(averaged: Pipeline, place: Settings, summary: RunSummary) -> None:
    import mlflow
    import pyarrow.parquet as pq

    from ml_platform.stages.trained_model import model_folder
    from ml_platform.training.scoring import Scorer

    chain = opened(averaged, place)
    listed = TrainingList.load(chain.store, published(averaged, place, "training_set"))
    rows = pq.read_table(TrainingList.paths(chain.store, listed.holdout)[0])
    each = []
    with chain.store.scratch() as scratch:
        for name in averaged.recipes:
            folder = model_folder(chain.store, published(averaged, place, name), scratch / name)
            each.append(Scorer.load(folder).score(rows))
    assert not np.allclose(*each)
    mlflow.set_tracking_uri(place.mlflow)
    try:
        assert summary.model is not None
        model = mlflow.pyfunc.load_model(summary.model.uri)
        answer = model.predict(rows.to_pandas())
    finally:
        mlflow.set_tracking_uri("")
    names = [f"probability_{state}" for state in ("broken", "fine", "worn")]
    np.testing.assert_allclose(answer[names].to_numpy(), np.mean(each, axis=0), atol=1e-6)
    trained = published(averaged, place)
    assert [row["candidate"] for row in trained.facts["candidates"]["rows"]] == ["short", "long", "average"]
    assert trained.facts["history"]["topology"]["processes"] == 2
    evaluation = published(averaged, place, "evaluation")
    report = chain.stages["evaluation"].metadata(chain, evaluation)["report"].value
    assert "| **average** |" in report
    version = published(averaged, place, "registered_model")
    assert "Candidates: short, long; their average" in chain.store.read_bytes(version.file(CARD_FILE)).decode()
    assert version.facts["program"] == "program", "it can be used without this code too"
    record = json.loads(chain.store.read_bytes(version.file(RECORD_FILE)))
    assert record["parameters"]["recipes"]["candidate_short"]["epochs"] == 1
    assert {"candidate_short", "candidate_long"} <= record["artifacts"].keys()
    registered = Connection(place.mlflow).client.get_run(version.facts["run_id"])
    assert registered.data.params["short.epochs"] == "1"
    assert "candidate_long_log_loss" in registered.data.metrics


def test_candidates_are_trained_at_a_time_and_one_that_fails_leaves_the_others(
    tiny: Pipeline, recipe: Recipe, place: Settings, tmp_path: Path
) -> None:
    def meets(name: str, other: str, **more: Any) -> Recipe:
        told = {"folder": str(tmp_path), "name": name, "others": [other], **more}
        return replace(recipe, model=MEETING, hyperparameters=told, epochs=1, processes=1)

    pair = with_candidates(tiny, good=meets("good", "bad"), bad=meets("bad", "good", then="raise"))
    # Neither would get on without the other: both are alive at one moment.
    summary = run_pipeline(pair, place.model_copy(update={"candidates_at_once": 2}))
    assert not summary.ok
    assert bodies(summary) == {"candidate_good": 1, "candidate_bad": 1}
    assert [stage.name for stage in summary.stages][-2:] == ["candidate_good", "candidate_bad"]
    assert by_name(summary)["candidate_bad"].failed == 1
    (problem,) = summary.problems
    assert "candidate_bad failed" in problem
    assert "bad has no such layer" in problem
    assert "Done, and kept: candidate_good" in problem
    assert published(pair, place, "candidate_good").run_id == summary.run_id
    blocked = opened(pair, place).statuses("trained_model")[""]
    assert "candidate_bad has not been materialized" in blocked.reason

    mended = replace(pair, candidates={**pair.candidates, "bad": meets("bad", "good")})
    summary = run_pipeline(mended, place, Request(select=["candidate_good", "candidate_bad", "trained_model"]))
    assert summary.ok
    assert bodies(summary) == {"candidate_bad": 1, "trained_model": 1}


@pytest.mark.slow
def test_candidates_are_materialized_from_the_ui_together(
    tiny: Pipeline, recipe: Recipe, place: Settings, tmp_path: Path
) -> None:
    def meets(name: str, other: str) -> Recipe:
        told = {"folder": str(tmp_path), "name": name, "others": [other]}
        return replace(recipe, model=MEETING, hyperparameters=told, epochs=1, processes=1)

    pair = with_candidates(tiny, left=meets("left", "right"), right=meets("right", "left"))
    settings = place.model_copy(update={"candidates_at_once": 2})
    with prepare_instance(settings) as instance:
        result = dg.materialize(
            build_assets(stages_of(pair)),
            selection=[key(pair, "candidate_left"), key(pair, "candidate_right")],
            resources=build_resources(settings),
            instance=instance,
        )
        assert result.success
        alone = dg.materialize(
            build_assets(stages_of(pair)),
            selection=[key(pair, "candidate_left")],
            resources=build_resources(settings),
            instance=instance,
        )
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key} == {
        "candidate_left",
        "candidate_right",
    }
    assert [e.asset_key.path[-1] for e in alone.get_asset_materialization_events() if e.asset_key] == ["candidate_left"]


@pytest.mark.slow
def test_on_a_cluster_all_candidates_are_trained_at_a_time(
    tiny: Pipeline, recipe: Recipe, place: Settings, tmp_path: Path
) -> None:
    (tmp_path / "meet").mkdir()

    def meets(name: str, other: str) -> Recipe:
        told = {"folder": str(tmp_path / "meet"), "name": name, "others": [other]}
        return replace(recipe, model=MEETING, hyperparameters=told, epochs=1, processes=1)

    pair = with_candidates(tiny, east=meets("east", "west"), west=meets("west", "east"))
    with played(tmp_path) as cluster:
        assert cluster.server is not None
        there = KubernetesSettings(
            image="project:1", kubeconfig=str(cluster.server.kubeconfig), store=place.store, poll_seconds=0.2
        )
        settings = place.model_copy(update={"launcher": "kubernetes", "kubernetes": there})
        summary = run_pipeline(pair, settings, Request(select=["candidate_east", "candidate_west"]))
        jobs = {job["metadata"]["name"] for job in cluster.server.objects.all("jobs")}
    assert not summary.problems
    assert bodies(summary) == {"candidate_east": 1, "candidate_west": 1}
    assert jobs == {f"train-{published(pair, place, name).fingerprint}" for name in pair.recipes}


INTERRUPTED = """
import sys
from dataclasses import replace
from pathlib import Path
from ml_platform.settings import Settings
from ml_platform.stages.run import Request, run_pipeline
from ml_platform_tests.stages.test_candidates import forever
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE

if __name__ == "__main__":
    settings = Settings(home=Path(sys.argv[1]), settle_seconds=0.0, candidates_at_once=2)
    run_pipeline(forever(PIPELINE, sys.argv[2]), settings)
"""


def forever(tiny: Pipeline, folder: str) -> Pipeline:
    """Two candidates that wait for somebody who never comes."""
    assert tiny.recipe is not None
    each = {
        name: replace(
            tiny.recipe,
            model=MEETING,
            hyperparameters={"folder": folder, "name": name, "others": ["nobody"]},
            processes=1,
        )
        for name in ("left", "right")
    }
    return with_candidates(tiny, **each)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_run_ends_the_jobs_of_all_candidates(
    place: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(place.home), str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        both = [tmp_path / name for name in ("left", "right")]
        _until(lambda: all(path.exists() for path in both))
        ranks = [int(path.read_text()) for path in both]
        assert all(_alive(rank) for rank in ranks)
        process.send_signal(number)
        process.wait(120)
        _until(lambda: not any(_alive(rank) for rank in ranks))
    finally:
        process.kill()
        process.wait()


def _until(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_an_average_is_built_once_more_from_its_record(two: Pipeline, place: Settings, tmp_path: Path) -> None:
    assert run_pipeline(replace(two, choose="average"), place).ok
    chain = opened(two, place)
    file = published(two, place, "registered_model").file(RECORD_FILE)
    record = from_json(chain.store.read_bytes(file), RECORD_FILE)
    now = replace(two, candidates={**two.candidates, "short": replace(two.candidates["short"], epochs=3)})
    then = as_recorded(now, record)
    assert then.recipes == two.recipes
    assert then.choose == "average"
    assert replaced(now, then) == ["candidates.short.epochs: 3 now, 1 then", "choose: best now, average then"]
    came = reproduce(then, record, place, tmp_path / "again")
    assert came.problems == []
    assert {"candidate_short", "candidate_long", "trained_model"} <= {stage.name for stage in came.stages}
    assert came.same


@pytest.mark.slow
def test_a_candidate_of_another_training_set_is_not_compared(two: Pipeline, place: Settings) -> None:
    assert run_pipeline(two, place).ok
    other = replace(two, split=replace(two.split, holdout_batches=1))
    summary = run_pipeline(other, place, Request(select=["training_set", "candidate_long", "trained_model"]))
    assert not summary.ok
    assert "candidate_short: trained on another training set" in summary.problems[-1]


def test_what_a_canary_cuts_short_does_not_make_two_candidates_one(two: Pipeline, recipe: Recipe) -> None:
    both = {"long": recipe, "longer": replace(recipe, epochs=2 * recipe.epochs)}
    small = _small(replace(two, candidates=both), Sample(origin="", batches=6, train=("a",) * 4, holdout=("b",) * 2))
    assert [each.epochs for each in small.candidates.values()] == [2, 2]
    assert small.split.holdout_batches == 2


def test_what_every_candidate_would_train_now_is_wanted(
    two: Pipeline, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_platform.discovery.pipelines", lambda settings: {"tiny": two})
    chain = opened(two, place)
    chain.planning = True
    wanted = {chain.statuses(name)[""].work.fingerprint for name in two.recipes}  # type: ignore[union-attr]
    assert len(wanted) == 2
    assert abandoned._wanted(place, "tiny") == wanted
