"""Strategies by name: built-ins, plug-in files, and one clear line for every mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

from strategies.decoding import registry
from strategies.decoding.errors import UserError, nearest, unknown

ROOT = Path(__file__).parents[2]
SPIRAL = ROOT / "tests" / "plugins" / "spiral.py"


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})


def refused(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_and_what_they_mean():
    assert registry.names()[:6] == ["raster", "rar", "par", "lpd", "arpg", "randar"]
    for name in registry.names():
        strategy = registry.get(name)
        assert strategy.name == name
        assert name != registry.describe(name)
        assert "\n" not in registry.describe(name)
    assert registry.origin("lpd") == "built in"


def test_names_descriptions_and_presets_need_no_torch():
    code = (
        "import sys; from strategies.decoding import registry, presets; "
        "[registry.describe(n) for n in registry.names()]; presets.preset_info(presets.preset_names()[0]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_unknown_names_come_with_the_nearest():
    assert "did you mean 'raster'" in refused(lambda: registry.get("rastr"))
    assert "did you mean 'lpd'" in refused(lambda: registry.get("lpdd"))
    text = refused(lambda: registry.get("lpd", repulsions=2))
    assert "unknown option 'repulsions' in strategy 'lpd': did you mean 'repulsion'?" in text
    assert "valid: none" in refused(lambda: registry.get("raster", order="locality"))


def test_options_are_typed():
    assert registry.get("lpd", repulsion=3).repulsion == 3
    assert registry.get("par", regions=16).regions == 16
    assert "expected int" in refused(lambda: registry.get("par", regions=4.0))
    assert "expected float" in refused(lambda: registry.get("lpd", repulsion="2"))
    assert "expected str" in refused(lambda: registry.get("lpd", order=1))


@pytest.mark.parametrize(
    ("name", "option", "value", "valid"),
    [("lpd", "order", "localty", "locality"), ("arpg", "schedule", "arcos", "arccos"),
     ("arpg", "prefill", "splitt", "split")],
)  # fmt: skip
def test_choices_are_checked_where_they_are_named(name, option, value, valid):
    text = refused(lambda: registry.get(name, **{option: value}))
    assert value in text
    assert valid in text


def test_families():
    assert registry.by_family("llamagen").family == "llamagen"
    assert "did you mean 'llamagen'" in refused(lambda: registry.by_family("lamagen"))


def test_a_plugin_file_becomes_a_strategy():
    assert registry.add_plugin(SPIRAL) == "spiral"
    assert registry.names()[-1] == "spiral"
    assert registry.get("spiral").title == "Spiral"
    assert registry.origin("spiral") == str(SPIRAL)
    assert registry.describe("spiral").startswith("Spiral:")


EMPTY = "import torch\n"
TWO = """
from strategies.raster import Raster
class A(Raster):
    name = "a"
class B(Raster):
    name = "b"
"""
TAKEN = """
from strategies.raster import Raster
class Mine(Raster):
    name = "lpd"
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (EMPTY, "expected one concrete Strategy class, found 0"),
        (TWO, "expected one concrete Strategy class, found 2"),
        (TAKEN, "the name 'lpd' is taken"),
        ("def broken(:\n", "SyntaxError"),
        ("import does_not_exist_anywhere\n", "ModuleNotFoundError"),
        ("raise ValueError('first line\\nsecond line')\n", "ValueError"),
    ],
)
def test_bad_plugins_are_one_line(tmp_path, text, says):
    path = tmp_path / f"plugin_{abs(hash(text))}.py"
    path.write_text(text)
    message = refused(lambda: registry.add_plugin(path))
    assert says in message
    assert str(path) in message


def test_a_missing_plugin_is_named(tmp_path):
    assert "no such file" in refused(lambda: registry.add_plugin(tmp_path / "none.py"))
    assert "no such file" in refused(lambda: registry.add_plugin(tmp_path))


def test_error_texts():
    assert nearest("zzz", ["a", "b"]) == "valid: a, b"
    assert str(unknown("sweep", "quik", ["quick"], "x.toml")).startswith(
        "unknown sweep 'quik' in x.toml: did you mean 'quick'?"
    )
