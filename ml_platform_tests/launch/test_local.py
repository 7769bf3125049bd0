"""What is the local launcher's own: real jobs of two processes under torchrun. `test_launcher` holds for all.

Each start takes seconds, so tests share what they can.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_platform import launch
from ml_platform.errors import TrainingError
from ml_platform.launch import State, Status
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.config import TrainingJob
from ml_platform.training.result import CONTENT, FolderResult
from ml_platform.training.scoring import Scorer
from ml_platform_tests.launch.conftest import pids, processes, wait_until
from ml_platform_tests.training import made

TROUBLED = "ml_platform_tests.training.models:troubled"
REPOSITORY = Path(__file__).parents[2]


def trouble(paths: list[str], kind: str) -> Any:
    return made.job(paths, model=TROUBLED, hyperparameters={"trouble": kind}, epochs=100)


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> LocalLauncher:
    return LocalLauncher(tmp_path_factory.mktemp("work with a space"))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(launcher: LocalLauncher, paths: list[str], lines: list[str]) -> FolderResult:
    return launch.run(launcher, name="first", job=made.job(paths), log=lines.append)


def same_bytes(a: FolderResult, b: FolderResult) -> bool:
    return all((a.folder / name).read_bytes() == (b.folder / name).read_bytes() for name in CONTENT)


def test_a_job_trains_and_its_log_is_followed(trained: FolderResult, lines: list[str], paths: list[str]) -> None:
    assert any(line.startswith("epoch 2/2: loss") for line in lines)
    assert trained.history["topology"]["processes"] == 2
    assert [entry["rank"] for entry in trained.history["resources"]] == [0, 1]
    assert len(Scorer.load(trained.folder).columns) == 4


def test_progress_reaches_dagster_and_the_same_job_gives_the_same_bytes(
    launcher: LocalLauncher, paths: list[str], trained: FolderResult, tmp_path: Path
) -> None:
    messages: list[dict[str, Any]] = []
    results: list[FolderResult] = []

    @dg.asset
    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        reader = dg.PipesTempFileMessageReader()
        with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), reader) as session:
            env = session.get_bootstrap_env_vars()
            results.append(launch.run(launcher, name="second", job=made.job(paths), env=env))
        messages.extend(session.get_custom_messages())
        return dg.MaterializeResult()

    assert dg.materialize([model], instance=dg.DagsterInstance.ephemeral()).success
    assert [m["epoch"] for m in messages if "step" not in m] == [1, 2]
    assert messages[-1]["train_loss"] == results[0].history["epochs"][-1]["train_loss"]
    assert same_bytes(results[0], trained)


def test_data_beyond_the_memory_is_streamed_and_still_repeatable(launcher: LocalLauncher, tmp_path: Path) -> None:
    paths = made.files(tmp_path, batches=2, rows=20_000, row_group=1500)
    job = made.job(paths, memory_mib=1, epochs=1, batch_size=1024)
    once = launch.run(launcher, name="streamed", job=job)
    again = launch.run(launcher, name="streamed-again", job=job)
    assert once.history["topology"]["rows_in"] == "streaming"
    assert same_bytes(once, again)
    assert once.history["epochs"][0]["train_loss"] < 0.69


def test_a_finished_job_is_not_trained_again(
    launcher: LocalLauncher, paths: list[str], trained: FolderResult, lines: list[str]
) -> None:
    run = launcher.launch("first", made.job(paths))
    assert (run.joined, run.status().state) == (True, State.SUCCEEDED)
    assert run.result() == trained
    assert list(run.logs()) == lines


def test_a_finished_job_is_joined_whatever_types_json_makes_of_its_hyperparameters(
    launcher: LocalLauncher, paths: list[str], trained: FolderResult
) -> None:
    """A tuple is written as a list."""
    run = launcher.launch("first", made.job(paths, hyperparameters={"hidden": (16,)}))
    assert (run.joined, run.status().state) == (True, State.SUCCEEDED)
    assert run.result() == trained


@pytest.mark.parametrize("spec", ["another", "broken", "gone"])
def test_a_finished_job_of_another_specification_is_replaced(
    launcher: LocalLauncher, paths: list[str], trained: FolderResult, caplog: pytest.LogCaptureFixture, spec: str
) -> None:
    name, mine = f"replaced-{spec}", made.job(paths, seed=1)
    shutil.copytree(launcher.folder("first"), launcher.folder(name))
    if spec == "broken":
        (launcher.folder(name) / "spec.json").write_text('{"schema": 0}')
    elif spec == "gone":
        (launcher.folder(name) / "spec.json").unlink()
    run = launcher.launch(name, mine)
    assert (run.joined, run.status().state) == (False, State.RUNNING)
    assert "another specification" in caplog.text
    assert ("'seed': 1" if spec == "another" else "spec.json") in caplog.text
    if spec != "another":  # one training tells enough
        run.cancel()
        return
    wait_until(lambda: run.status().state.final, what="the job to end")
    other = run.result()
    assert other.files["weights.safetensors"] != trained.files["weights.safetensors"]
    assert other.files["preprocessing.json"] == trained.files["preprocessing.json"]
    assert launcher.launch(name, mine).joined


def test_an_exception_in_a_rank_stands_on_top_of_the_error_also_for_who_waited(
    launcher: LocalLauncher, paths: list[str]
) -> None:
    first, second = (launcher.launch("raises", trouble(paths, "raise")) for _ in range(2))
    assert second.status().state is State.WAITING
    wait_until(lambda: first.status().state.final, what="the job to fail")
    assert (first.status().state, second.status().state) == (State.FAILED, State.FAILED)
    for run in (first, second):
        with pytest.raises(TrainingError) as caught:
            run.result()
        text = str(caught.value)
        assert text.startswith("Training failed in rank 1, which ended with exit code 1 (an exception): ValueError: no")
        assert "models.py" in text.partition("where:")[0]  # the traceback
        assert str(launcher.folder("raises") / "log.txt") in text
        assert text.count("Traceback") == 1, "the last lines say something else"
    assert not processes(launcher.folder("raises"))
    assert not (launcher.folder("raises") / "model").exists()


def without_restarts(job: TrainingJob) -> TrainingJob:
    return replace(job, recipe=replace(job.recipe, restarts=0))


def test_a_job_lost_each_time_is_started_again_only_so_often_and_says_why(
    launcher: LocalLauncher, paths: list[str]
) -> None:
    job = trouble(paths, "kill")
    seen: list[State] = []
    with pytest.raises(TrainingError, match="and so was its restart") as caught:
        launch.run(
            launcher,
            name="lost",
            job=replace(job, recipe=replace(job.recipe, restarts=1)),
            on_status=lambda status: seen.append(status.state),
            pause_seconds=0.1,
        )
    assert seen.count(State.LOST) == 2
    assert re.search(r"rank 1, .*exit code -9 \(SIGKILL: .*memory", str(caught.value))
    assert "Connection" not in str(caught.value).splitlines()[0]
    assert caught.value.passing
    assert not processes(launcher.folder("lost"))


def test_a_failure_of_the_models_own_is_not_tried_again(launcher: LocalLauncher, paths: list[str]) -> None:
    seen: list[State] = []
    with pytest.raises(TrainingError, match="not finite") as caught:
        launch.run(launcher, name="nan", job=trouble(paths, "nan"), on_status=lambda status: seen.append(status.state))
    assert seen == [State.RUNNING, State.FAILED]
    assert not caught.value.passing
    top = str(caught.value).partition("Traceback")[0]
    assert "where: epoch 1, step 3" in top, "the first lines tell all: a page shows no more"
    assert "fix:   lower the learning rate" in top
    assert "in wrapper" not in str(caught.value), "torch's frame is nobody's concern"


@pytest.mark.parametrize(
    ("kind", "on_top", "below"),
    [
        (
            "vanish",
            "Training failed in rank 1, which ended with exit code 3, without",
            "[rank 1] the last that rank 1 says",
        ),
        pytest.param("exit", "Training failed in rank 1, .* ended the process", "sys.exit(0)", marks=pytest.mark.slow),
        pytest.param("vanish well", "Training failed: a rank ended before", "os._exit", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_ends_too_early_is_the_one_that_is_told_of(
    launcher: LocalLauncher, paths: list[str], kind: str, on_top: str, below: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        launch.run(launcher, name=kind.replace(" ", "-"), job=trouble(paths, kind))
    text = str(caught.value)
    assert re.match(on_top, text)
    assert below in text
    assert not caught.value.passing
    log = text.partition("the last lines of the ranks:")[2]
    assert "steps an epoch" in log, "rank 0 tells how far it came, not where it waited"
    assert "This rank ends, since another has ended" in log


@pytest.mark.slow
def test_parameters_that_several_processes_cannot_leave_out_are_named(
    launcher: LocalLauncher, paths: list[str]
) -> None:
    with pytest.raises(TrainingError, match=r"no gradient for more.weight, more.bias") as caught:
        launch.run(launcher, name="unused", job=trouble(paths, "unused"))
    assert "find_unused_parameters" not in str(caught.value)


@pytest.fixture(scope="module")
def undisturbed(launcher: LocalLauncher, paths: list[str]) -> FolderResult:
    return launch.run(launcher, name="undisturbed", job=slow(paths))


def slow(paths: list[str], checkpoint_seconds: float = 0.05) -> TrainingJob:
    trouble = {"trouble": "slow"}
    return made.job(paths, model=TROUBLED, hyperparameters=trouble, epochs=10, checkpoint_seconds=checkpoint_seconds)


@pytest.mark.parametrize(
    ("who", "number"),
    [
        ("training.job", signal.SIGTERM),
        # `stages/test_restarts.py` kills one in every test run.
        pytest.param("training.job", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("launch.agent", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("launch.agent", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_job_ended_from_outside_in_mid_training_ends_with_the_same_bytes(
    launcher: LocalLauncher, paths: list[str], undisturbed: FolderResult, who: str, number: signal.Signals
) -> None:
    """Who is asked to end has time for a checkpoint, and needs none from before."""
    name, asked = f"disturbed-{who}-{number}", number == signal.SIGTERM
    seen: list[State] = []
    told: list[str] = []
    went_on: list[str] = []

    def disturb(line: str) -> None:
        if line.startswith("goes on from a checkpoint"):
            went_on.append(line)
        if line.startswith("epoch 3/10") and State.LOST not in seen:
            os.kill(pids(f"-m ml_platform.{who} ", launcher.folder(name))[-1], number)

    def look(status: Status) -> None:
        seen.append(status.state)
        told.append(status.detail)

    result = launch.run(
        launcher,
        name=name,
        job=slow(paths, 3600 if asked else 0.05),
        log=disturb,
        on_status=look,
        pause_seconds=0.1,
    )
    assert seen == [State.RUNNING, State.LOST, State.WAITING, State.RUNNING, State.SUCCEEDED]
    assert same_bytes(result, undisturbed)
    assert went_on, "what was trained before the first checkpoint is not trained again"
    if asked and who == "training.job":
        assert "ended with exit code 75 (asked to end from outside, after a checkpoint)" in told[1]
    assert sorted(path.name for path in launcher.folder(name).glob(".*")) == [], "no checkpoint is left"


def test_the_number_of_restarts_is_no_part_of_what_a_job_is(paths: list[str]) -> None:
    job = made.job(paths)
    assert job.identity() == without_restarts(job).identity()


@pytest.mark.slow
def test_a_job_that_takes_more_gpu_hours_than_it_may_is_ended_unless_it_takes_none(
    paths: list[str], tmp_path: Path
) -> None:
    launcher = LocalLauncher(tmp_path, gpus=8)
    assert launch.run(launcher, name="cpu", job=made.job(paths, epochs=1, gpu_hours=1e-9)).history["rows"]
    seen: list[Status] = []
    dear = replace(trouble(paths, "wait"), recipe=replace(trouble(paths, "wait").recipe, gpu_hours=1e-4), device="auto")
    with pytest.raises(TrainingError, match="more GPU-hours than it may"):
        launch.run(launcher, name="dear", job=dear, on_status=seen.append)
    assert {status.gpus for status in seen if status.state is State.RUNNING} == {2}, "one a rank"
    assert not processes(launcher.folder("dear"))


def test_who_waits_takes_over_what_was_cancelled_and_cancelling_leaves_nothing(
    launcher: LocalLauncher, paths: list[str]
) -> None:
    job, folder = trouble(paths, "wait"), launcher.folder("cancelled")
    first = launcher.launch("cancelled", job)
    second = launcher.launch("cancelled", job)
    assert (first.joined, second.joined) == (False, True)
    assert (first.status().state, second.status().state) == (State.RUNNING, State.WAITING)
    wait_until(lambda: "steps an epoch" in (folder / "log.txt").read_text(), what="training to begin")
    assert len(processes(folder)) == 3  # torchrun and two ranks
    first.cancel()
    assert not processes(folder)
    assert first.status().state is State.CANCELLED
    with pytest.raises(TrainingError, match="cancelled"):
        first.result()
    assert second.status().state is State.RUNNING
    assert not second.joined
    assert not launcher.remove("cancelled")
    second.cancel()
    assert not processes(folder)
    assert launcher.remove("cancelled")


_LAUNCHING = """
import sys
from pathlib import Path
from ml_platform import launch
from ml_platform.launch.local import LocalLauncher
from ml_platform.training.config import TrainingJob
job = TrainingJob.from_json(Path(sys.argv[2]).read_bytes())
launch.run(LocalLauncher(Path(sys.argv[1])), name="orphan", job=job, log=lambda line: print(line, flush=True))
"""


# By Ctrl-C it cancels, which the test above looks at in every test run.
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_no_process_outlives_its_launcher(paths: list[str], tmp_path: Path, number: signal.Signals) -> None:
    spec, folder = tmp_path / "spec.json", tmp_path / "work" / "orphan"
    spec.write_text(trouble(paths, "wait").to_json())
    command = [sys.executable, "-c", _LAUNCHING, str(tmp_path / "work"), str(spec)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        assert any("steps an epoch" in line for line in parent.stdout)
        assert len(processes(folder)) == 3
        parent.send_signal(number)
        parent.wait(120)
    wait_until(lambda: not processes(folder), what="the job's processes to end")
