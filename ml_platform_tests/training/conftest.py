"""Made data, once a file of tests."""

from __future__ import annotations

import pytest

from ml_platform_tests.training import made


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four files of made rows."""
    return made.files(tmp_path_factory.mktemp("data"))
