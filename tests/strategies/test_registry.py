"""Strategies by name: built-ins, plug-in files, and one clear line for every mistake."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness.cli import main
from pardec.errors import UserError, nearest, unknown
from strategies.decoding import registry
from strategies.decoding.presets import preset

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
    assert ": arpg, " in text
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
        (ABSTRACT, "found 0; Mine lacks decode"),
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
            module = value.partition(":")[0].partition(".")[0]
            if text is not None:
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
        ([("mine", "outer_g:Mine", "raise SystemExit(3)")], "SystemExit: 3"),
        (
            [("mine", "outer_e:Mine", MINE), ("mine", "outer_f:Mine", MINE)],
            "2 packages declare it, outer_e:Mine and outer_f:Mine; uninstall all but one",
        ),
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


BROKEN = {
    "removed": ("ghostpkg.decode:Mine", None, "no module 'ghostpkg'; was its package removed?"),
    "moved": ("outer_h.decode:Mine", MINE, "no module 'outer_h.decode'"),
    "nothing": ("", None, "no module ''"),
    "no-module": ("not a module!:Mine", None, "no module 'not a module!'"),
    "relative": (".decode:Mine", None, "no module ''"),
    "dependency": ("outer_i:Mine", "import json, missing_xyz.a\n" + MINE, "needs 'missing_xyz', which isn't"),
    "from-dependency": ("outer_j:Mine", "from missing_xyz import a\n" + MINE, "needs 'missing_xyz'"),
    "class": ("outer_k:Nine", MINE, "defines no 'Nine'"),
    "syntax": ("outer_l:Mine", "orders = [1)", "outer_l.py is no Python: SyntaxError: closing parenthesis"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_entry_point_is_listed_with_the_reason_and_harms_nobody(entry_point, capsys, kind):
    value, text, reason = BROKEN[kind]
    entry_point(("mine", value, text), ("outer-spiral", "outer_m:Mine", MINE.replace("mine", "outer-spiral")))
    assert registry.names()[len(registry.BUILT_IN) :] == ["mine", "outer-spiral"]
    assert reason in registry.describe("mine")
    assert "\n" not in registry.describe("mine")
    assert "cannot be imported" in (told := refused(lambda: registry.get("mine"))) or "Nine" in told
    assert registry.loadable()[len(registry.BUILT_IN) :] == ["outer-spiral"]
    assert registry.get("outer-spiral").name == "outer-spiral"
    assert "llamagen" in registry.families()
    assert preset("arpg-l")[0].name == "arpg"
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert reason in out
    assert "zoo/" in out
    assert "mine" in refused(lambda: registry.get("mne"))


def test_a_package_that_takes_a_name_of_ours_is_listed_and_ignored(entry_point, capsys):
    entry_point(("lpd", "outer_d:Mine", TAKEN), ("a b\x1b", "outer_n:Mine", MINE))
    assert registry.get("lpd").title == "LPD"
    assert registry.names() == list(registry.BUILT_IN)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "entry point outer_d:Mine is ignored: the strategy name 'lpd' is taken (built in)" in out
    assert "a b\\x1b" in out
    assert "\x1b" not in out


def test_clashing_packages_are_listed_with_both(entry_point, capsys):
    entry_point(
        ("mine", "outer_e:Mine", MINE), ("mine", "outer_f:Mine", MINE), ("mine", "outer_e:Mine", MINE)
    )
    assert main(["list"]) == 0
    assert "2 packages declare it, outer_e:Mine and outer_f:Mine" in capsys.readouterr().out
    assert registry.loadable() == list(registry.BUILT_IN)


def test_a_family_of_ours_stays_ours(entry_point):
    text = MINE.replace("class Mine(Raster):", "class Mine(Raster):\n    published = Published")
    declared = "class Published:\n    family = 'llamagen'\n    strategy = 'mine'\n"
    entry_point(("mine", "outer_o:Mine", declared + text))
    assert registry.by_family("llamagen").strategy == "raster"


@pytest.mark.parametrize("content", ["[pardec.strategies]\nghost\n", "[console_scripts]\nghost\n"])
def test_a_package_whose_entry_points_are_garbage_is_listed_and_ignored(
    monkeypatch, tmp_path, capsys, content
):
    for name, text in (("ghost", content), ("outer", "[pardec.strategies]\nmine = outer_p:Mine [extra]\n")):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(text)
    (tmp_path / "outer_p.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    try:
        assert registry.get("mine").name == "mine"
        assert main(["list"]) == 0
        assert "package ghost is ignored: its entry points can't be read" in capsys.readouterr().out
    finally:
        monkeypatch.undo()
        registry._entry_points.cache_clear()


def test_listing_imports_no_package(entry_point):
    entry_point(("mine", "outer_q.part:Mine", None))
    assert "no module 'outer_q'" in registry.describe("mine")
    entry_point(("mine", "outer_r:Mine", '"""Mine: a sentence."""\nraise ValueError\n' + MINE))
    assert registry.describe("mine") == "Mine: a sentence."
    assert "outer_r" not in sys.modules


def test_an_entry_point_that_is_no_python_is_listed_with_the_reason(entry_point):
    entry_point(("mine", "outer_broken:Mine", "orders = [1)"))
    assert "outer_broken.py is no Python: SyntaxError: closing parenthesis" in registry.describe("mine")
    assert "SyntaxError" in refused(lambda: registry.get("mine"))
