"""The example of the README as a user meets it: a file, or an entry point of an installed package."""

import os
import re
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from strategies.decoding import registry

SPIRAL = Path(__file__).parent / "plugins" / "spiral.py"


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_plugins", {})


def installed(folder: Path) -> None:
    """The example as a package that declares an entry point, as pip leaves it."""
    shutil.copy(SPIRAL, folder / "outer_spiral.py")
    information = folder / "outer_spiral-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outer-spiral\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[pardec.strategies]\nspiral = outer_spiral:Spiral\n")


def test_an_entry_point_is_listed_and_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    try:
        assert main(["list"]) == 0
        listed = capsys.readouterr().out
        assert re.search(r"spiral +Spiral: ARPG's network decodes from the centre outwards", listed)
        assert main(["explain", "strategy=spiral,steps=16,network=arpg-l,checkpoint=random"]) == 0
        assert "319,845,376" in capsys.readouterr().out
    finally:
        monkeypatch.undo()
        registry._entry_points.cache_clear()


def test_a_file_is_explained(no_plugins: None, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("explain", "strategy=spiral,steps=16,network=arpg-l,checkpoint=random")
    assert main([*words, "--plugin", os.fspath(SPIRAL)]) == 0
    assert "319,845,376" in capsys.readouterr().out


def test_without_the_plugin_the_name_is_unknown(no_plugins: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "strategy=spiral,steps=16"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "unknown strategy 'spiral'" in error
