"""Strategies by name: built-ins, plug-in files, and one clear line for every mistake."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pardec.errors import UserError, nearest, unknown
from strategies.decoding import registry

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
    assert "did you mean 'lpd' (built in)" in refused(lambda: registry.get("lpdd"))
    registry.add_plugin(SPIRAL)
    text = refused(lambda: registry.get("spirl"))
    assert f"did you mean 'spiral' ({SPIRAL})" in text
    assert "arpg, lpd, par" in text
    assert f"spiral ({SPIRAL})" in text
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


NAMELESS = """
from strategies.decoding.base import Strategy
class Mine(Strategy):
    network = lesson = taught_logits = allowed_steps = sizes = orders = decode = None
"""
ABSTRACT = """
from strategies.decoding.base import Strategy
class Mine(Strategy):
    network = lesson = taught_logits = allowed_steps = sizes = None
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NAMELESS, "class Mine has no name"),
        (ABSTRACT, "found 0; Mine lacks decode, orders"),
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


def test_two_files_of_one_name_are_two_modules_but_not_one_strategy(tmp_path):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "mine.py")
        paths[-1].write_text(TAKEN.replace("lpd", f"mine-{folder}"))
        registry.add_plugin(paths[-1])
    assert registry.get("mine-a") == registry.get("mine-a")
    assert type(registry.get("mine-a")) is not type(registry.get("mine-b"))
    again = tmp_path / "again.py"
    again.write_text(TAKEN.replace("lpd", "mine-a"))
    assert f"the name 'mine-a' is taken ({paths[0]})" in refused(lambda: registry.add_plugin(again))


@pytest.fixture
def entry_point(monkeypatch, tmp_path):
    """Declares entry points of modules made of text, as installed packages do."""
    monkeypatch.syspath_prepend(tmp_path)

    def declare(*points):
        found = []
        for name, value, text in points:
            module = value.partition(":")[0]
            (tmp_path / f"{module}.py").write_text(text)
            monkeypatch.delitem(sys.modules, module, raising=False)
            found.append(EntryPoint(name, value, registry.GROUP))
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        registry._entry_points.cache_clear()

    yield declare
    monkeypatch.undo()
    registry._entry_points.cache_clear()


MINE = TAKEN.replace('"lpd"', '"mine"')


def test_an_entry_point_loads_like_a_plugin(entry_point):
    entry_point(("mine", "outer_mine:Mine", MINE))
    assert registry.get("mine").name == "mine"
    assert registry.origin("mine") == "entry point outer_mine:Mine"
    entry_point(("mine", "outer_mine", MINE))
    assert registry.get("mine").name == "mine"
    assert "did you mean 'mine' (entry point outer_mine)" in refused(lambda: registry.get("mne"))


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([("mine", "outer_a:Nine", MINE)], "expected a concrete Strategy class Nine, found 0"),
        ([("mine", "outer_b:Mine", TAKEN)], "calls itself 'lpd'"),
        ([("mine", "outer_c:Mine", "raise ValueError('a\\nb')")], "ValueError: a b"),
        ([("lpd", "outer_d:Mine", TAKEN)], "the strategy name 'lpd' is taken (built in)"),
        ([("mine", "outer_e:Mine", MINE), ("mine", "outer_f:Mine", MINE)], "taken (outer_e:Mine)"),
    ],
)
def test_bad_entry_points_are_one_line(entry_point, points, says):
    entry_point(*points)
    assert says in refused(lambda: registry.get("mine"))


def test_a_missing_plugin_is_named(tmp_path):
    assert "no such file" in refused(lambda: registry.add_plugin(tmp_path / "none.py"))
    assert "no such file" in refused(lambda: registry.add_plugin(tmp_path))


def test_error_texts():
    assert nearest("zzz", ["a", "b"]) == "valid: a, b"
    assert str(unknown("sweep", "quik", ["quick"], "x.toml")).startswith(
        "unknown sweep 'quik' in x.toml: did you mean 'quick'?"
    )


def test_an_entry_point_that_is_no_python_is_listed_with_the_reason(entry_point):
    entry_point(("mine", "outer_broken:Mine", "orders = [1)"))
    assert "outer_broken.py is no Python: SyntaxError: closing parenthesis" in registry.describe("mine")
    assert "SyntaxError" in refused(lambda: registry.get("mine"))
