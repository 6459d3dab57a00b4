"""Every recording of a published implementation is replayed: one test item per file, none skipped."""

from pathlib import Path

import pytest

from tests.replays import read_golden, replay

TOLERANCE = 1e-4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder: Path = metafunc.config.getoption("--goldens")
    files = sorted(folder.glob("*.safetensors"))
    metafunc.parametrize("path", files or [folder], ids=[file.stem for file in files] or ["empty-folder"])


def test_golden(path: Path, record_property) -> None:
    assert path.is_file(), f"{path} holds no recordings"
    worst = replay(read_golden(path))
    record_property("worst_difference", worst)
    assert worst <= TOLERANCE
