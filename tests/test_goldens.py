"""Every recording of a published implementation is replayed: one test item per file, none skipped."""

import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.golden_replay import REPLAYS, read_golden

TOLERANCE = 1e-4
WORST: dict[str, float] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder: Path = metafunc.config.getoption("--goldens")
    files = sorted(folder.glob("*.safetensors"))
    metafunc.parametrize("path", files or [folder], ids=[file.stem for file in files] or ["empty-folder"])


def test_golden(path: Path, record_property) -> None:
    assert path.is_file(), f"{path} holds no recordings"
    golden = read_golden(path)
    own = f"tests.replays.{golden.family.replace('-', '_')}"  # of families that record more than the common
    replays = importlib.import_module(own).REPLAYS if find_spec(own) else REPLAYS
    worst = replays[golden.kind](golden)
    WORST[path.stem] = worst
    record_property("worst_difference", worst)
    assert worst <= TOLERANCE
