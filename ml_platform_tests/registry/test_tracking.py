"""One MLflow run per trained model, which ends as what happened."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from ml_platform.errors import RegistryError
from ml_platform.registry.tracking import MlflowResource, find_run
from ml_platform_tests.registry.conftest import context

NAMES = {"experiment": "toy", "run_name": "toy model"}


def status(mlflow: MlflowResource, run_id: str) -> str:
    return mlflow.connection().client.get_run(run_id).info.status


def test_a_stage_that_succeeds_ends_the_run_finished(mlflow):
    with mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as run:
        assert status(mlflow, run.run_id) == "RUNNING"
    found = mlflow.connection().client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "toy model"
    assert found.data.tags["dagster_run_id"] == "dagster-run-1"
    assert found.data.tags["ml_platform.fingerprint"] == "f1"


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (DagsterExecutionInterruptedError, "KILLED")],
)
def test_a_stage_that_does_not_ends_it_as_what_happened(mlflow, error, expected):
    with pytest.raises(error), mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as run:
        raise error
    assert status(mlflow, run.run_id) == expected


def test_a_failed_asset_leaves_a_failed_run(mlflow):
    @dg.asset
    def trained_model(context: dg.AssetExecutionContext, mlflow: MlflowResource) -> None:
        with mlflow.tracked_run(context, fingerprint="f1", **NAMES):
            raise dg.Failure("no model", allow_retries=False)

    result = dg.materialize([trained_model], resources={"mlflow": mlflow}, raise_on_error=False)
    assert not result.success
    connection = mlflow.connection()
    run_id = find_run(connection, connection.experiment("toy"), "f1")
    found = connection.client.get_run(run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["dagster_run_id"] == result.run_id


def test_the_same_fingerprint_is_the_same_run_and_another_is_another(mlflow):
    with mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as first:
        first.log_metrics({"roc_auc": 0.7})
    with mlflow.tracked_run(context("dagster-run-2"), fingerprint="f1", **NAMES) as again:
        again.log_metrics({"brier": 0.2})
    # dagster-mlflow alone would put both models of one Dagster run into one MLflow run.
    with mlflow.tracked_run(context("dagster-run-2"), fingerprint="f2", **NAMES) as other:
        pass
    assert again.run_id == first.run_id != other.run_id
    found = mlflow.connection().client.get_run(first.run_id)
    assert found.data.metrics == {"roc_auc": 0.7, "brier": 0.2}
    assert found.data.tags["dagster_run_id"] == "dagster-run-2"


ENTER = """
import logging, os, sys
from types import SimpleNamespace
from ml_platform.registry.tracking import MlflowResource
mlflow = MlflowResource(tracking_uri=sys.argv[1])
context = SimpleNamespace(log=logging.getLogger(), run=SimpleNamespace(run_id="dagster-run-1"))
with mlflow.tracked_run(context, experiment="toy", fingerprint="f1", run_name="toy model") as run:
    print(run.run_id, flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
"""


def test_a_killed_process_leaves_a_run_that_the_next_one_ends(mlflow, uri):
    killed = subprocess.run([sys.executable, "-c", ENTER, uri, "die"], capture_output=True, text=True, check=False)
    assert killed.returncode == -9
    run_id = killed.stdout.strip()
    assert status(mlflow, run_id) == "RUNNING"
    with mlflow.tracked_run(context("dagster-run-2"), fingerprint="f1", **NAMES) as run:
        assert run.run_id == run_id
    assert status(mlflow, run_id) == "FINISHED"


def test_two_processes_on_a_fresh_home_make_one_run(tmp_path):
    """Neither the database's tables nor the run are made twice."""
    uri = f"sqlite:///{tmp_path / 'new home' / 'mlflow.db'}"
    command = [sys.executable, "-c", ENTER, uri, "live"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert not any("Running upgrade" in err for _, err in outputs)  # sixty lines of migrations


def test_logging_the_same_again_changes_nothing(mlflow):
    for number in range(2):
        with mlflow.tracked_run(context(f"run-{number}"), fingerprint="f1", **NAMES) as run:
            run.log_params({"epochs": 3})
            run.log_metrics({"roc_auc": 0.7, "undefined": float("nan")})
            run.log_series({"loss": [0.6, 0.5]})
            run.log_artifacts({"plots/roc.png": b"picture", "card.md": "# Toys"})
    client = mlflow.connection().client
    assert [(p.step, p.value) for p in client.get_metric_history(run.run_id, "loss")] == [(1, 0.6), (2, 0.5)]
    assert len(client.get_metric_history(run.run_id, "undefined")) == 1
    assert client.get_run(run.run_id).data.params == {"epochs": "3"}
    assert [f.path for f in client.list_artifacts(run.run_id, "plots")] == ["plots/roc.png"]


def test_a_metric_that_changed_is_logged(mlflow):
    for value in (0.7, 0.6, 0.7):
        with mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as run:
            run.log_metrics({"roc_auc": value})
        assert mlflow.connection().client.get_run(run.run_id).data.metrics == {"roc_auc": value}


def test_a_long_parameter_is_cut_and_says_so(mlflow):
    with mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as run:
        run.log_params({f"p{number}": number for number in range(250)} | {"long": 10_000 * "x"})
    params = mlflow.connection().client.get_run(run.run_id).data.params
    assert len(params) == 251
    assert len(params["long"]) == 6000
    assert params["long"].endswith("[cut: 10,000 characters]")


def test_a_parameter_that_changed_is_warned_of(mlflow, caplog):
    for epochs in (3, 4):
        with mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as run:
            run.log_params({"epochs": epochs})
    assert "keeps epochs='3'; this stage had '4'" in caplog.text
    assert mlflow.connection().client.get_run(run.run_id).data.params == {"epochs": "3"}


def test_artifacts_lie_beside_the_database(mlflow, tmp_path):
    with mlflow.tracked_run(context(), fingerprint="f1", **NAMES) as run:
        run.log_artifacts({"note.txt": "hello"})
    notes = list((tmp_path / "a home" / "mlflow" / "artifacts").rglob("note.txt"))
    assert [note.read_text() for note in notes] == ["hello"]
    assert not Path("mlruns").exists()


def test_the_process_is_left_as_it_was(mlflow, monkeypatch):
    import mlflow as library

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    mlflow.connection()
    before = dict(os.environ)
    tracking = library.get_tracking_uri()
    with mlflow.tracked_run(context(), fingerprint="f1", **NAMES):
        pass
    assert dict(os.environ) == before
    assert library.get_tracking_uri() == tracking
    assert library.active_run() is None


def test_a_run_of_someone_elses_is_not_written_into(mlflow, uri):
    import mlflow as library

    library.set_tracking_uri(uri)
    try:
        with library.start_run() as mine:
            with (
                pytest.raises(RegistryError, match=mine.info.run_id),
                mlflow.tracked_run(context(), fingerprint="f1", **NAMES),
            ):
                pass
            assert "ml_platform.fingerprint" not in library.get_run(mine.info.run_id).data.tags
    finally:
        library.set_tracking_uri("")


def test_a_deleted_experiment_says_how_to_restore_it(mlflow):
    connection = mlflow.connection()
    connection.client.delete_experiment(connection.experiment("toy"))
    with (
        pytest.raises(RegistryError, match="mlflow experiments restore"),
        mlflow.tracked_run(context(), fingerprint="f1", **NAMES),
    ):
        pass


def test_a_database_that_is_none_or_has_no_place_is_named(tmp_path):
    (tmp_path / "file").write_text("this is no database" * 100)
    for path, message in ((tmp_path / "file", "not a database"), (tmp_path / "file" / "mlflow.db", "no place for")):
        with pytest.raises(RegistryError, match=message):
            MlflowResource(tracking_uri=f"sqlite:///{path}").connection()


def test_loading_definitions_imports_no_mlflow():
    code = "import sys, ml_platform.registry.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
