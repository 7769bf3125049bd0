"""A trained model for the tests of this folder."""

import pytest

from ml_platform_tests.registry.trained import TOY, Trained, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(TOY, tmp_path_factory.mktemp("trained"))
