"""Whether a model stands in the registry, asked without MLflow's client."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.errors import RegistryError
from ml_platform.registry import models
from ml_platform.registry.connection import SQLITE
from ml_platform.registry.glance import champion, stands
from ml_platform.registry.tracking import MlflowResource
from ml_platform_tests.registry.conftest import free_port
from ml_platform_tests.registry.test_models import register


def check(mlflow: MlflowResource, version: str, uri: str = "") -> None:
    """What must hold of a registry whose only model `toy` has the champion of data version `version`."""
    uri = uri or mlflow.tracking_uri
    client = mlflow.connection().client
    number = client.get_model_version_by_alias("toy", "champion").version
    assert stands(uri, "toy", version)
    found = champion(uri, "toy")
    assert found is not None
    assert (found.version, found.data_version) == (str(number), version)
    assert found.fingerprint == client.get_model_version("toy", number).tags[models.FINGERPRINT_TAG]
    client.set_model_version_tag("toy", number, models.EVALUATION_TAG, "e1")
    found = champion(uri, "toy")
    assert found is not None
    assert found.evaluation == "e1"
    assert champion(uri, "another") is None
    assert not stands(uri, "toy", "another")
    assert not stands(uri, "another", version)

    client.delete_registered_model_alias("toy", "champion")
    assert champion(uri, "toy") is None
    assert stands(uri, "toy", version), "who is the champion is another question"
    client.set_registered_model_alias("toy", "challenger", number)
    waiting = champion(uri, "toy", "challenger")
    assert waiting is not None
    assert waiting.data_version == version
    client.set_registered_model_alias("toy", "champion", number)

    client.set_model_version_tag("toy", number, models.DAMAGED_TAG, "a file was changed")
    assert not stands(uri, "toy", version)
    client.delete_model_version_tag("toy", number, models.DAMAGED_TAG)
    client.delete_model_version_tag("toy", number, models.COMPLETE_TAG)
    assert not stands(uri, "toy", version)
    client.set_model_version_tag("toy", number, models.COMPLETE_TAG, "true")
    assert stands(uri, "toy", version)


@pytest.mark.parametrize("scheme", [SQLITE, "sqlite+pysqlite:///"])
def test_a_database_says_what_stands(mlflow, trained, scheme):
    """The second scheme names the same file in a way that only MLflow's client reads."""
    register(mlflow, trained, "d1")
    check(mlflow, "d1", mlflow.tracking_uri.replace(SQLITE, scheme))


def test_a_model_stands_though_another_is_the_champion(mlflow, trained):
    register(mlflow, trained, "d1")
    assert register(mlflow, trained, "d2").version == "2"
    assert stands(mlflow.tracking_uri, "toy", "d1")


def test_a_model_whose_folder_is_gone_stands_no_more_until_it_is_registered_again(mlflow, trained):
    register(mlflow, trained, "d1")
    shutil.rmtree(Path(mlflow.tracking_uri.removeprefix(SQLITE)).parent / "artifacts")
    assert not stands(mlflow.tracking_uri, "toy", "d1")
    assert register(mlflow, trained, "d1").version == "2"
    assert stands(mlflow.tracking_uri, "toy", "d1")


def test_a_deleted_version_and_a_deleted_model_stand_no_more(mlflow, trained):
    register(mlflow, trained, "d1")
    register(mlflow, trained, "d2")
    client = mlflow.connection().client
    client.delete_model_version("toy", "1")
    assert not stands(mlflow.tracking_uri, "toy", "d1")
    assert stands(mlflow.tracking_uri, "toy", "d2")
    client.delete_registered_model("toy")
    assert not stands(mlflow.tracking_uri, "toy", "d2")


def test_a_database_that_is_gone_or_empty_has_nothing(mlflow, trained, tmp_path: Path):
    register(mlflow, trained, "d1")
    path = Path(mlflow.tracking_uri.removeprefix(SQLITE))
    path.rename(tmp_path / "moved.db")
    assert not stands(mlflow.tracking_uri, "toy", "d1")
    assert not path.exists()  # looking makes nothing
    path.touch()
    assert not stands(mlflow.tracking_uri, "toy", "d1")


def test_what_is_no_database_is_said(tmp_path: Path):
    path = tmp_path / "text.db"
    path.write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(RegistryError, match="cannot be read") as caught:
        stands(f"{SQLITE}{path}", "toy", "d1")
    assert str(path) in str(caught.value)


def test_a_server_says_what_stands(server, trained):
    mlflow = MlflowResource(tracking_uri=server)
    assert not stands(server, "toy", "glanced")
    register(mlflow, trained, "glanced")
    check(mlflow, "glanced", f"{server}/")


def test_a_server_that_is_away_is_said():
    away = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RegistryError, match="ML_PLATFORM_MLFLOW") as caught:
        stands(away, "toy", "d1")
    assert away in str(caught.value)


def test_a_database_is_read_without_mlflow(mlflow, trained):
    register(mlflow, trained, "d1")
    heavy = ("mlflow", "pandas", "pyarrow", "sqlalchemy", "torch", "numpy", "requests")
    script = (
        "import sys; from ml_platform.registry.glance import stands; assert stands(sys.argv[1], 'toy', 'd1');"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, mlflow.tracking_uri]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
