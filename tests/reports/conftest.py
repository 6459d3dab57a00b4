"""A results folder as a sweep leaves it, made once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_rows import sweep_rows, write_sweep

from harness.commands.common import introduce_strategies
from results.schema import Row
from tests.quick_figures import few_pictures, quick_figures  # noqa: F401
from tests.reports.browsers import browser  # noqa: F401
from tests.reports.opened_page import opened, report  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def introduced() -> None:
    """As the commands do it."""
    introduce_strategies()


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with rows and artifacts; tests must not write to it."""
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture
def rows() -> Sequence[Row]:
    return sweep_rows()
