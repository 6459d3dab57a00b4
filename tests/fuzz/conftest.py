"""How much is tried: little and always the same in the ordinary suite, as much as asked for by a flag."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from hypothesis import HealthCheck, settings

from harness.machine.environment import environment
from tests.quick_figures import quick_figures  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def profile(request: pytest.FixtureRequest) -> Iterator[None]:
    """hypothesis as the whole folder runs it; what is read once per process is read before it is watched."""
    examples = request.config.getoption("--fuzz-examples")
    checks = list(HealthCheck)
    common = {"deadline": None, "database": None, "suppress_health_check": checks, "print_blob": True}
    settings.register_profile("fuzz-few", max_examples=25, derandomize=True, **common)
    settings.register_profile("fuzz-many", max_examples=examples or 1, **common)
    before = settings.get_current_profile_name()
    settings.load_profile("fuzz-many" if examples else "fuzz-few")
    environment()
    plt.figure()
    plt.close("all")
    yield
    settings.load_profile(before)


@pytest.fixture
def temporary_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes ``tempfile`` put its folders into the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path
