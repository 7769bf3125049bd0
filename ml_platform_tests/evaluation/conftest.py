"""A trained model for the tests of this folder."""

import pytest

from ml_platform_tests.registry.trained import Trained, toy


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return toy(tmp_path_factory.getbasetemp() / "toy")
