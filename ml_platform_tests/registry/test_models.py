"""A version of a registered model is whole, hash-true and the only one of its bytes, whatever happens on the way."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.errors import RegistryError
from ml_platform.registry import models
from ml_platform.registry.connection import Connection
from ml_platform.registry.threshold import THRESHOLD_FILE, write_threshold
from ml_platform.registry.tracking import MlflowResource
from ml_platform.registry.upload import PROGRAM, PROGRAM_TAG
from ml_platform.training.scoring import Scorer
from ml_platform_tests.registry.conftest import context
from ml_platform_tests.registry.trained import TOY, Trained, rows, train


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model of other rows."""
    return train(TOY, tmp_path_factory.mktemp("other"), seed=1)


def register(mlflow: MlflowResource, trained: Trained, version: str = "a", **more: Any) -> models.RegisteredVersion:
    """Track and register, as a stage does. `version` stands for the model's data version and its fingerprint."""
    with mlflow.tracked_run(context(), experiment="toy", fingerprint=version, run_name="toy") as run:
        return register_in(run.connection, run.run_id, trained, version, **more)


def register_in(
    connection: Connection, run_id: str, trained: Trained, version: str = "a", **more: Any
) -> models.RegisteredVersion:
    options: dict[str, Any] = {"metrics": {"roc_auc": 0.75}, "tags": {"training_set": "t1"}, **more}
    return models.register(
        trained.pipeline,
        trained.folder,
        connection=connection,
        run_id=run_id,
        fingerprint=version,
        data_version=version,
        input_example=trained.example,
        **options,
    )


def versions(mlflow: MlflowResource) -> list[str]:
    """All version numbers, also those that were found damaged."""
    found = mlflow.connection().client.search_model_versions("name = 'toy'")
    return sorted((str(version.version) for version in found), key=int)


def test_a_model_is_registered_once(mlflow, trained):
    first, again = register(mlflow, trained), register(mlflow, trained)
    assert (first.created, again.created) == (True, False)
    assert first.version == again.version == "1"
    assert first.aliases == ("champion",)
    assert versions(mlflow) == ["1"]
    assert models.champion(mlflow.connection(), "toy") == again
    run = mlflow.connection().client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    assert first.tags["training_set"] == "t1"
    assert first.tags["metric.roc_auc"] == "0.75"
    assert first.tags[models.FINGERPRINT_TAG] == "a"


FRESH = """
import sys, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/toy@champion")
model.predict(pandas.read_parquet(sys.argv[2])).to_parquet(sys.argv[3])
"""


def test_a_fresh_process_scores_raw_rows_as_the_scorer_does(mlflow, uri, trained, tmp_path):
    register(mlflow, trained)
    frame = trained.frame(500)
    frame.to_parquet(tmp_path / "rows.parquet")
    paths = [str(tmp_path / "rows.parquet"), str(tmp_path / "answer.parquet")]
    subprocess.run([sys.executable, "-c", FRESH, uri, *paths], check=True, cwd=tmp_path, capture_output=True)
    answer = pd.read_parquet(tmp_path / "answer.parquet")
    scores = trained.scorer.score(frame)
    assert abs(answer["probability"] - scores).max() < 1e-6
    assert (answer["prediction"] == (scores >= 0.5)).all()


def test_a_version_that_somebody_loaded_by_name_is_still_whole(mlflow, uri, trained, tmp_path):
    first = register(mlflow, trained)
    load(uri)
    assert list((tmp_path / "a home").rglob("registered_model_meta")), "MLflow leaves a file of its own in the store"
    assert replace(register(mlflow, trained), created=True) == first


def load(uri: str, name: str = "toy") -> Any:
    import mlflow.pyfunc

    mlflow.set_tracking_uri(uri)
    try:
        return mlflow.pyfunc.load_model(f"models:/{name}@champion")
    finally:
        mlflow.set_tracking_uri("")


def test_the_model_says_what_it_takes_and_shows_an_example(mlflow, uri, trained):
    register(mlflow, trained)
    model = load(uri)
    inputs = model.metadata.signature.inputs
    assert inputs.input_names() == ["size", "age", "maker", "place"]
    assert inputs.required_input_names() == inputs.input_names()
    assert model.metadata.signature.outputs.input_names() == ["probability", "prediction"]
    example = model.input_example
    assert list(example.columns) == inputs.input_names()
    assert len(model.predict(example)) == 5
    pins = Path(model.metadata.artifact_path.removeprefix("file://").replace("%20", " "), "requirements.txt")
    pinned = dict(line.split("==") for line in pins.read_text().split())
    assert set(pinned) >= {"mlflow", "torch", "numpy", "pandas", "pyarrow", "safetensors", "ml-platform"}
    assert not any("+" in version for version in pinned.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="size"), r"missing inputs \['size'\]"),
        (lambda rows: rows.assign(size="big"), "column size"),
        (lambda rows: rows.assign(size=[1.5, "big", 2, None, 3]), "column size"),
        (lambda rows: rows.assign(age="old"), "column age"),
        (lambda rows: rows.assign(age=range(5)), "column age. Can not safely convert int64 to float64"),
        (lambda rows: rows.assign(place="Paris"), "'place' cannot be read"),
        (lambda rows: rows.assign(maker=3.5), "column maker"),
    ],
)
def test_bad_rows_are_refused_by_column(mlflow, uri, trained, change, message):
    register(mlflow, trained)
    with pytest.raises(Exception, match=message) as raised:
        load(uri).predict(change(trained.frame(5)))
    assert type(raised.value).__name__ == "MlflowException"


def test_missing_and_unknown_values_are_no_error(mlflow, uri, trained):
    register(mlflow, trained)
    frame = trained.frame(3)
    odd = frame.assign(size=None, age=[1.0, None, 3.0], maker=[None, "never seen", "x"], place=[None, 99, 1])
    assert load(uri).predict(odd)["probability"].between(0, 1).all()


def test_raw_rows_are_of_the_types_that_the_feature_job_writes(uri, tmp_path):
    """It casts numbers to double and categories to string; of others MLflow takes what loses nothing."""
    made = train(TOY, tmp_path / "made", cast=True)
    register(MlflowResource(tracking_uri=uri), made)
    model = load(uri)
    raw = rows(200, 11).select(TOY.features.columns).to_pandas().assign(size=range(200))
    cast = raw.assign(size=raw["size"].astype(float), age=raw["age"].astype(float), place=raw["place"].astype(str))
    expected = model.predict(cast)["probability"]
    assert expected.nunique() > 100
    assert (expected != model.predict(cast.assign(place=None))["probability"]).all()  # places are known, and matter
    for kind in ("int32", "float32"):
        answer = model.predict(cast.astype({"size": kind, "age": kind}))["probability"]
        assert (answer == expected).all(), kind
    half = cast.assign(place=cast["place"].where(cast.index % 2 == 0, None))
    assert abs(model.predict(half)["probability"] - made.scorer.score(half)).max() < 1e-6
    with pytest.raises(Exception, match="column place"):
        model.predict(cast.assign(place=raw["place"]))


def test_a_binary_model_predicts_by_its_threshold(mlflow, uri, trained, tmp_path):
    frame = trained.frame().assign(unasked="is ignored")
    assert list(load_registered(mlflow, uri, trained).predict(frame).columns) == ["probability", "prediction"]
    (tmp_path / THRESHOLD_FILE).write_bytes(write_threshold(0.2))
    register(mlflow, train(TOY, tmp_path / "made", seed=2), "c", carried={THRESHOLD_FILE: tmp_path / THRESHOLD_FILE})
    answer = load(uri).predict(frame)
    assert (answer["prediction"] == (answer["probability"] >= 0.2)).all()
    assert (answer["prediction"] != (answer["probability"] >= 0.5)).any()


def load_registered(mlflow: MlflowResource, uri: str, trained: Trained) -> Any:
    register(mlflow, trained)
    return load(uri)


def test_the_exported_program_goes_with_a_version(mlflow, trained, tmp_path):
    import torch

    version = register(mlflow, trained, program=True)
    assert version.tags[PROGRAM_TAG] == PROGRAM
    tmp_path = tmp_path / "fetched"
    tmp_path.mkdir()
    models.download(mlflow.connection(), "toy", version.version, tmp_path)
    assert {path.name for path in (tmp_path / PROGRAM).iterdir()} == {
        "model.pt2",
        "program.json",
        "score.py",
        "README.md",
    }
    module = torch.export.load(tmp_path / PROGRAM / "model.pt2").module()
    scores = module(torch.full((3, 2), torch.nan, dtype=torch.float64), torch.zeros((3, 2), dtype=torch.int64))
    nothing = pd.DataFrame({"size": [None], "age": [None], "maker": [None], "place": [None]})
    assert abs(scores[0].item() - trained.scorer.score(nothing)[0]) < 1e-6


def test_a_model_that_cannot_be_exported_is_registered_all_the_same(mlflow, uri, tmp_path, caplog):
    branching = replace(TOY, recipe=replace(TOY.recipe, model="ml_platform_tests.registry.branching:build"))
    made = train(branching, tmp_path / "made")
    version = register(mlflow, made, program=True)
    assert version.aliases == ("champion",)
    assert version.tags[PROGRAM_TAG].startswith("none: ")
    assert "without an exported program" in caplog.text
    assert load(uri).predict(made.frame(9))["probability"].between(0, 1).all()


@pytest.mark.parametrize(("task", "label"), [("multiclass", "grade"), ("regression", "price")])
def test_other_tasks(uri, tmp_path, task, label):
    from ml_platform_tests.registry.trained import declare

    made = train(declare(task, label), tmp_path / "made")
    register(MlflowResource(tracking_uri=uri), made)
    frame = made.frame()
    answer, scores = load(uri).predict(frame), made.scorer.score(frame)
    if task == "regression":
        assert list(answer.columns) == ["prediction"]
        assert abs(answer["prediction"] - scores).max() < 1e-4
    else:
        assert list(answer.columns) == ["prediction", "probability_fair", "probability_good", "probability_poor"]
        assert abs(answer.iloc[:, 1:].to_numpy() - scores).max() < 1e-6
        assert set(answer["prediction"]) <= {"fair", "good", "poor"}


def test_another_model_is_another_version_and_an_old_one_comes_back(mlflow, trained, other):
    first = register(mlflow, trained, "a")
    second = register(mlflow, other, "b")
    assert (second.version, second.aliases) == ("2", ("champion",))
    back = register(mlflow, trained, "a")
    assert (back.version, back.created, back.aliases) == (first.version, False, ("champion",))
    assert len(versions(mlflow)) == 2


def test_a_model_that_is_not_promoted_waits_as_challenger(mlflow, trained, other):
    register(mlflow, trained, "a")
    waiting = register(mlflow, other, "b", promote=False)
    assert waiting.aliases == ("challenger",)
    connection = mlflow.connection()
    assert models.champion(connection, "toy").version == "1"
    assert models.champion(connection, "toy", models.CHALLENGER).version == "2"
    assert register(mlflow, other, "b", promote=True).aliases == ("champion",)
    assert models.champion(connection, "toy", models.CHALLENGER) is None


def test_no_champion_yet(mlflow):
    assert models.champion(mlflow.connection(), "toy") is None


class Dying(Connection):
    """Dies at the n-th call, after MLflow has done what it was asked, and before anyone hears of it."""

    left = 1000

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        answer = super().call(what, function, *args, **kwargs)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return answer


def aliased_are_whole(connection: Connection) -> bool:
    """Whether every alias names a complete version whose files are those that were sent."""
    for alias in (models.CHAMPION, models.CHALLENGER):
        found = models.champion(connection, "toy", alias)
        if found is None:
            continue
        version = connection.client.get_model_version("toy", found.version)
        if found.tags.get(models.COMPLETE_TAG) != "true" or models.verify(connection, version):
            return False
    return True


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_the_next_call_completes_it(mlflow, uri, trained, other, tmp_path, stride):
    """At each `stride`-th step: no alias names anything half-made, and registering again leaves one version more."""
    register(mlflow, other, "before")
    step, finished = 1 - stride, False
    while not finished:
        step += stride
        assert step < 60
        shutil.copyfile(uri.removeprefix("sqlite:///"), tmp_path / f"{step}.db")
        copy = MlflowResource(tracking_uri=f"sqlite:///{tmp_path / f'{step}.db'}")
        with copy.tracked_run(context(), experiment="toy", fingerprint="a", run_name="toy") as run:
            dying = Dying(copy.tracking_uri)
            dying.left = step
            try:
                register_in(dying, run.run_id, trained)
                finished = True
            except KeyboardInterrupt:
                pass
            assert aliased_are_whole(run.connection), step
            whole = register_in(run.connection, run.run_id, trained)
            assert (whole.version, whole.aliases) == ("2", ("champion",)), step
            assert aliased_are_whole(run.connection), step
        assert versions(copy) == ["1", "2"], step
    assert step > 10


def test_two_registrations_at_once_make_one_version(mlflow, trained):
    with mlflow.tracked_run(context(), experiment="toy", fingerprint="a", run_name="toy") as run:
        connections = [mlflow.connection() for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda c: register_in(c, run.run_id, trained), connections))
    assert len(versions(mlflow)) == 1
    assert {version.version for version in found} == set(versions(mlflow))
    assert sum(version.created for version in found) == 1
    assert models.champion(mlflow.connection(), "toy").tags[models.COMPLETE_TAG] == "true"


@pytest.mark.parametrize("damage", ["change", "remove", "remove all"])
def test_a_tampered_version_is_replaced_and_loses_its_alias(mlflow, trained, tmp_path, damage, caplog):
    register(mlflow, trained)
    weights = next((tmp_path / "a home").rglob("weights.safetensors"))
    if damage == "change":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    elif damage == "remove":
        weights.unlink()
    else:
        shutil.rmtree(weights.parents[2])
    replaced = register(mlflow, trained)
    assert (replaced.version, replaced.created, replaced.aliases) == ("2", True, ("champion",))
    assert "Version 1 of toy is damaged" in caplog.text
    damaged = mlflow.connection().client.get_model_version("toy", "1")
    assert models.DAMAGED_TAG in damaged.tags
    assert not damaged.aliases
    assert register(mlflow, trained).version == "2"


def test_a_registered_model_comes_back_whole_or_not_at_all(mlflow, trained, tmp_path):
    register(mlflow, trained)
    connection = mlflow.connection()
    (tmp_path / "one").mkdir()
    scorer = Scorer.load(models.download(connection, "toy", "1", tmp_path / "one"))
    assert (scorer.score(trained.frame()) == trained.scorer.score(trained.frame())).all()
    weights = next((tmp_path / "a home").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    (tmp_path / "two").mkdir()
    with pytest.raises(RegistryError, match=r"weights\.safetensors was changed"):
        models.download(connection, "toy", "1", tmp_path / "two")


def test_another_model_under_the_same_data_version_is_refused(mlflow, trained, other):
    register(mlflow, trained, "a")
    with pytest.raises(RegistryError, match=r"weights\.safetensors was changed"):
        register(mlflow, other, "a")


def test_a_folder_without_a_model_is_refused(mlflow, trained, tmp_path):
    from ml_platform.errors import TrainingError

    with pytest.raises(TrainingError, match="Not a model folder"):
        register(mlflow, Trained(TOY, tmp_path), "a")
    assert versions(mlflow) == []


def test_the_same_bytes_of_another_fingerprint_keep_their_provenance(mlflow, trained):
    register(mlflow, trained)
    with mlflow.tracked_run(context(), experiment="toy", fingerprint="later", run_name="toy") as run:
        again = models.register(
            TOY,
            trained.folder,
            connection=run.connection,
            run_id=run.run_id,
            fingerprint="later",
            data_version="a",
            input_example=trained.example,
            metrics={"roc_auc": 0.8},
        )
    assert not again.created
    assert again.tags[models.FINGERPRINT_TAG] == "a"
    assert again.tags["metric.roc_auc"] == "0.8"
