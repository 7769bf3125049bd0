"""What `run` is asked for: nothing to do, replaced values, forced work, and two runs that share theirs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.errors import StoreError
from ml_platform.failures import FAILURE_TAG
from ml_platform.instance import prepare_instance
from ml_platform.pipeline import MetricGate, Pipeline
from ml_platform.settings import Settings, child_environment
from ml_platform.stages.opening import landing_of
from ml_platform.stages.run import Request, plan_pipeline, run_pipeline
from ml_platform.stages.summary import RunSummary
from ml_platform_tests.conftest import fresh_settings, land_samples
from ml_platform_tests.stages.conftest import BATCH_STAGES, LOTS, WHOLE_STAGES, bodies, by_name

HEAVY = ("dagster", "torch", "pyspark", "mlflow", "pandera", "polars", "pandas", "numpy", "pyarrow", "sqlalchemy")


def environment(settings: Settings) -> dict[str, str]:
    return child_environment(
        ML_PLATFORM_HOME=str(settings.home),
        ML_PLATFORM_PIPELINES="ml_platform_tests.tiny_pipeline",
        ML_PLATFORM_SETTLE_SECONDS="0",
        ML_PLATFORM_SPARK_MASTER="local[1]",
    )


@pytest.mark.parametrize("command", ["run", "plan"])
def test_with_nothing_to_do_nothing_heavy_is_imported(
    home: Settings, cold: RunSummary, command: str, tmp_path: Path
) -> None:
    script = (
        "import atexit, sys\n"
        "from ml_platform.cli.main import main\n"
        f"atexit.register(lambda: print('HEAVY', *sorted(set({HEAVY}) & set(sys.modules))))\n"
        f"main([{command!r}, 'tiny'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY", done.stdout
    with prepare_instance(home) as instance:
        runs = instance.get_runs_count()
    run_pipeline_again = subprocess.run(
        [sys.executable, "-m", "ml_platform.cli", "run", "tiny"], env=environment(home), capture_output=True, check=True
    )
    assert b"nothing was to be done" in run_pipeline_again.stdout
    with prepare_instance(home) as instance:
        assert instance.get_runs_count() == runs


def test_a_replaced_value_runs_what_it_changes_and_the_declared_one_is_remembered(
    home: Settings, cold: RunSummary, tiny: Pipeline
) -> None:
    request = Request(replaced=["train.learning_rate=0.0201"])  # a model much like the champion, so that it is let in
    planned = {stage.name: stage for stage in plan_pipeline(tiny, home, request)}
    assert planned["trained_model"].stale == [""]
    assert not planned["features"].to_do
    changed = run_pipeline(tiny, home, request)
    assert changed.ok, changed.problems
    assert set(bodies(changed)) == {"trained_model", "evaluation", "registered_model"}
    assert changed.model is not None
    assert cold.model is not None
    assert changed.model.version != cold.model.version
    assert bodies(run_pipeline(tiny, home, request)) == {}
    back = run_pipeline(tiny, home)
    assert bodies(back) == {}
    assert back.model is not None
    assert (back.model.version, back.model.aliases) == (cold.model.version, ("champion",))


def test_forced_stages_run_and_equal_results_go_no_further(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    forced = run_pipeline(tiny, home, Request(force=True, select=["training_set"]))
    assert forced.ok, forced.problems
    assert bodies(forced) == {"training_set": 1}
    assert bodies(run_pipeline(tiny, home)) == {}


def test_a_failure_says_whether_it_passes(tiny: Pipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_platform.store import Store

    land_samples(tiny, landing_of(settings))
    with monkeypatch.context() as patch:

        def unreachable(*args: object, **kwargs: object) -> None:
            raise StoreError("The store cannot be reached.") from ConnectionResetError("reset by peer")

        patch.setattr(Store, "commit_many", unreachable)
        summary = run_pipeline(tiny, settings, Request(select=["raw_batch"]))
    assert not summary.ok
    with prepare_instance(settings) as instance:
        run = instance.get_run_by_id(summary.run_id)
    assert run is not None
    assert (run.status, run.tags[FAILURE_TAG]) == (dg.DagsterRunStatus.FAILURE, "passing")
    assert run_pipeline(tiny, settings, Request(select=["raw_batch"])).ok


def test_two_runs_at_once_build_everything_once(tiny: Pipeline, tmp_path: Path) -> None:
    """Two machines, as it were: each has a home of its own, and they share the store."""
    homes = [tmp_path / "one", tmp_path / "other"]
    shared = {"store": str(tmp_path / "store"), "landing": str(tmp_path / "landing")}
    everything = [fresh_settings(path, **shared) for path in homes]
    land_samples(tiny, landing_of(everything[0]))
    script = (
        "import json, sys\n"
        "from dataclasses import asdict\n"
        "from ml_platform.settings import settings\n"
        "from ml_platform.stages.run import run_pipeline\n"
        "from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE\n"
        "if __name__ == '__main__':\n"
        "    summary = run_pipeline(PIPELINE, settings())\n"
        "    print(json.dumps({'built': {s.name: s.built for s in summary.stages}, 'problems': summary.problems}))\n"
    )
    place = {f"ML_PLATFORM_{name.upper()}": value for name, value in shared.items()}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script], env={**environment(each), **place}, stdout=subprocess.PIPE, text=True
        )
        for each in everything
    ]
    import json

    answers = [json.loads(run.communicate(timeout=600)[0].splitlines()[-1]) for run in runs]
    assert [answer["problems"] for answer in answers] == [[], []]
    built = {stage: sum(answer["built"][stage] for answer in answers) for stage in answers[0]["built"]}
    for stage in BATCH_STAGES:
        assert built[stage] == len(LOTS), built
    for stage in WHOLE_STAGES[:-1]:
        assert built[stage] == 1, built
    assert built["registered_model"] == 2, "each has a registry of its own"
    assert by_name(run_pipeline(tiny, everything[0]))["features"].fresh == len(LOTS)


def test_a_plan_is_of_exactly_the_stages_that_were_asked_for(home: Settings, cold: RunSummary, tiny: Pipeline) -> None:
    """An earlier stage that is not asked for stays as it is published, in a plan as in a run."""
    request = Request(replaced=["features.lookback=2", "train.epochs=12"], select=["trained_model"])
    assert [stage.name for stage in plan_pipeline(tiny, home, request) if stage.to_do] == []
    assert run_pipeline(tiny, home, request).run_id == ""
    request = Request(replaced=["features.lookback=2"], select=["training_set"])
    (planned,) = plan_pipeline(tiny, home, request)
    assert not planned.to_do
    assert "features of 6 batches" in planned.waiting[""]
    assert not run_pipeline(tiny, home, request).ok


def test_a_run_of_some_batches_leaves_what_reads_all_of_them_alone(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    own = fresh_settings(tmp_path / "own", store=home.store, landing=home.landing, mlflow=home.mlflow)
    assert run_pipeline(tiny, own).model == cold.model
    some = Request(batches=LOTS[:2], replaced=["features.lookback=2"])
    planned = {stage.name: stage for stage in plan_pipeline(tiny, own, some)}
    assert list(planned["features"].build) == LOTS[:2]
    assert not planned["training_set"].to_do
    assert "4 other batches" in planned["training_set"].waiting[""]
    summary = run_pipeline(tiny, own, some)
    assert summary.ok, summary.problems
    assert bodies(summary) == {"features": 2}
    assert [stage.name for stage in plan_pipeline(tiny, own, some) if stage.to_do] == []
    assert run_pipeline(tiny, own, some).run_id == "", "the same again is nothing to do"
    assert run_pipeline(tiny, own).model == cold.model


def test_a_model_that_misses_its_gate_is_refused_without_another_run(
    home: Settings, cold: RunSummary, tiny: Pipeline, tmp_path: Path
) -> None:
    own = fresh_settings(tmp_path / "own", store=home.store, landing=home.landing)
    strict = replace(tiny, gates=(MetricGate(metric="accuracy", at_least=1.0),))
    first = run_pipeline(strict, own)
    assert not first.ok
    assert first.run_id
    again = run_pipeline(strict, own)
    assert again.run_id == ""
    assert not again.ok
    assert "accuracy >= 1.0 missed" in again.problems[0]
    assert run_pipeline(tiny, own).ok
