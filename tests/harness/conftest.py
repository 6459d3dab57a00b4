"""A zoo of tiny networks for the whole session."""

from pathlib import Path

import pytest

from tests.harness.small_zoo import make_zoo


@pytest.fixture(scope="session")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zoo(tmp_path_factory.mktemp("zoo"))
