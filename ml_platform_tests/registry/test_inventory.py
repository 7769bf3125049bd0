"""All that the registry holds, as it is asked before anything is thrown away."""

import pytest

from ml_platform.errors import RegistryError
from ml_platform.registry import inventory as inventories
from ml_platform.registry import models
from ml_platform.registry.connection import SQLITE
from ml_platform.registry.inventory import inventory
from ml_platform.registry.tracking import MlflowResource
from ml_platform.registry.upload import DATA_VERSION_TAG
from ml_platform_tests.registry.conftest import free_port
from ml_platform_tests.registry.test_models import register


def versions(uri: str, name: str = "toy") -> set[str]:
    return {tags.get(DATA_VERSION_TAG, "") for model, tags in inventory(uri).versions if model == name}


def check(mlflow: MlflowResource, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must hold of a registry with versions of `toy` of the data versions `i1` and `i2`, whoever is asked."""
    assert {"i1", "i2"} <= versions(uri)
    assert "toy" in inventory(uri).models
    monkeypatch.setattr(inventories, "_PAGE", 1)
    assert {"i1", "i2"} <= versions(uri), "page by page"
    client = mlflow.connection().client
    found = {v.tags[DATA_VERSION_TAG]: v.version for v in client.search_model_versions("name = 'toy'")}
    client.delete_model_version_tag("toy", found["i2"], models.COMPLETE_TAG)
    assert "i2" in versions(uri), "not complete, and still somebody's"
    client.delete_model_version("toy", found["i1"])
    assert "i1" not in versions(uri)
    assert "i2" in versions(uri)


@pytest.mark.parametrize("scheme", [SQLITE, "sqlite+pysqlite:///"])
def test_a_database_is_listed(mlflow, trained, scheme, monkeypatch):
    """The second scheme names the same file in a way that only MLflow's client reads."""
    assert versions(mlflow.tracking_uri) == set()
    for data_version in ("i1", "i2"):
        register(mlflow, trained, data_version)
    check(mlflow, mlflow.tracking_uri.replace(SQLITE, scheme), monkeypatch)


def test_a_server_is_listed(server, trained, monkeypatch):
    mlflow = MlflowResource(tracking_uri=server)
    for data_version in ("i1", "i2"):
        register(mlflow, trained, data_version)
    check(mlflow, server, monkeypatch)


def test_a_registry_that_is_away_is_said(tmp_path):
    with pytest.raises(RegistryError):
        inventory(f"http://127.0.0.1:{free_port()}")
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one" * 20)
    with pytest.raises(RegistryError, match="cannot be read"):
        inventory(f"{SQLITE}{tmp_path}/text.db")
    assert inventory(f"{SQLITE}{tmp_path}/none.db").models == frozenset()
