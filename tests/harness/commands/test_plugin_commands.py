"""pardec check and pardec new-strategy as a user meets them."""

import os
from pathlib import Path

import pytest

from harness.cli import main
from strategies.decoding import registry

SPIRAL = Path(__file__).parents[2] / "plugins" / "spiral.py"
PEEKING = """
from strategies.raster import Raster
class Mine(Raster):
    name = "peeking"
    def taught_logits(self, network, tokens, labels, lesson):
        return super().taught_logits(network, tokens.roll(-1, dims=1), labels, lesson)
"""


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})


def fails(capsys, *arguments):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("pardec: ")
    assert error.count("\n") == 1
    return error


def test_check_prints_the_card_of_a_name(capsys):
    assert main(["check", "raster", "--only", "causal", "--only", "given_tokens"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "causal        pass",
        "given_tokens  not applicable: any_order = False",
        "raster: 1 pass, 0 fail, 0 expected failure, 1 not applicable",
    ]


def test_check_without_a_name_holds_every_strategy_to_it_a_line_each(capsys, tmp_path):
    path = tmp_path / "peeking.py"
    path.write_text(PEEKING)
    assert main(["check", "--only", "lessons_leak_nothing", "--plugin", os.fspath(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    named = {line.partition(":")[0] for line in lines if " expected failure, " in line}
    assert named >= {"peeking", *registry.BUILT_IN}
    assert [line for line in lines if " 1 fail, " in line] == [
        "peeking: 0 pass, 1 fail, 0 expected failure, 0 not applicable"
    ]


def test_check_takes_a_file_or_the_name_of_a_plugin(capsys):
    assert main(["check", os.fspath(SPIRAL), "--only", "plans_are_valid"]) == 0
    assert main(["check", "spiral", "--plugin", os.fspath(SPIRAL), "--only", "plans_are_valid"]) == 0
    assert capsys.readouterr().out.count("spiral: 1 pass, 0 fail") == 2


def test_check_exits_with_1_and_says_why(capsys, tmp_path):
    path = tmp_path / "peeking.py"
    path.write_text(PEEKING)
    assert main(["check", os.fspath(path), "--only", "lessons_leak_nothing", "--only", "lessons"]) == 1
    out = capsys.readouterr().out
    assert "lessons               pass" in out
    assert "lessons_leak_nothing  fail: taught logits up to the group of place 1" in out
    assert "lessons_leak_nothing: In training, the logits of a group do not depend" in out


def test_check_names_what_is_wrong_with_its_arguments(capsys, tmp_path):
    assert "did you mean 'lpd' (built in)" in fails(capsys, "check", "lpdd")
    assert "no such file" in fails(capsys, "check", os.fspath(tmp_path / "none.py"))
    assert "did you mean 'causal'" in fails(capsys, "check", "lpd", "--only", "casual")


SETTINGS = {
    "lpd,order=random": "lpd,order=random: 1 pass, 0 fail",
    "strategy=lpd,order=random,repulsion=2": "lpd,order=random,repulsion=2: 1 pass",
    f"{SPIRAL},prefill=split": "spiral,prefill=split: 1 pass",
    "par,regions=16": "par,regions=16: 1 pass",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_check_takes_a_setting_of_a_strategy(capsys, setting):
    assert main(["check", setting, "--only", "plans_are_valid"]) == 0
    assert SETTINGS[setting] in capsys.readouterr().out


def test_the_setting_is_what_is_checked(capsys):
    assert main(["check", "par,regions=9", "--only", "causal"]) == 1
    assert "doesn't divide into 3 x 3 equal regions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lpd,ordr=random", ["unknown key 'ordr'", "did you mean 'order'"]),
        ("lpd,order=localty", ["did you mean 'locality'"]),
        ("lpd,repulsion=much", ["'repulsion'", "expected float"]),
        ("lpd,order", ["'order' is no setting", "KEY=VALUE"]),
        ("lpd,order=random,order=locality", ["'order' is set twice"]),
        ("order=random", ["no strategy", "NAME,OPTION=VALUE"]),
        ("lpdd,order=random", ["unknown strategy 'lpdd'", "did you mean 'lpd'"]),
        ("none.py,order=random", ["none.py", "no such file"]),
    ],
)
def test_settings_that_are_none_are_one_line(capsys, setting, words):
    error = fails(capsys, "check", setting)
    for word in words:
        assert word in error


def test_a_plugin_with_a_comma_in_its_name(capsys, tmp_path):
    path = tmp_path / "a,b.py"
    path.write_text(SPIRAL.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["check", str(path), "--only", "plans_are_valid"]) == 0


@pytest.mark.parametrize(("name", "file"), [("columns", "columns.py"), ("my-columns2", "my_columns2.py")])
def test_a_new_strategy_keeps_the_whole_contract(capsys, tmp_path, name, file):
    flag = "--out" if name == "columns" else "--folder"
    assert main(["new-strategy", name, flag, os.fspath(tmp_path)]) == 0
    path = tmp_path / file
    assert os.fspath(path) in capsys.readouterr().out
    assert len(path.read_text().splitlines()) < 60
    assert "@" not in path.read_text().replace("@dataclass", "")
    if name == "columns":
        assert main(["check", os.fspath(path)]) == 0, capsys.readouterr().out
        said = "24 pass, 0 fail, 0 expected failure, 5 not applicable"
    else:  # the same but for its name
        assert main(["check", os.fspath(path), "--only", "declares_itself"]) == 0
        said = "1 pass, 0 fail, 0 expected failure, 0 not applicable"
    assert f"{name}: {said}" in capsys.readouterr().out


def test_a_new_strategy_overwrites_nothing(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("precious")
    assert "is not overwritten" in fails(capsys, "new-strategy", "mine", "--folder", os.fspath(tmp_path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["Mine", "2d", "a b", "../a", "a--b", "a_", "class", "é", "a.py"])
def test_bad_names_are_refused(capsys, tmp_path, name):
    error = fails(capsys, "new-strategy", name, "--folder", os.fspath(tmp_path))
    assert f"strategy name '{name}'" in error
    assert not list(tmp_path.iterdir())


def test_the_folder_stands_in_the_texts(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["new-strategy", "--help"])
    assert "--out DIR" in capsys.readouterr().out
    contract = (Path(__file__).parents[3] / "docs/contract.md").read_text(encoding="utf-8")
    assert "pardec new-strategy waves --out DIR" in contract
    folder = tmp_path / "my strategies"
    folder.mkdir()
    assert main(["new-strategy", "mine", "--out", os.fspath(folder)]) == 0
    assert f"pardec train mine --plugin '{folder / 'mine.py'}'" in capsys.readouterr().out


def test_missing_weights_advise_a_command_that_makes_them(capsys, tmp_path):
    advice = fails(capsys, "explain", "strategy=lpd", "--zoo", os.fspath(tmp_path))
    assert f"make it with: pardec train lpd --out {tmp_path}\n" in advice
    advice = fails(capsys, "explain", "strategy=lpd,network=zoo/lpd-seed3", "--zoo", os.fspath(tmp_path))
    assert f"pardec train lpd --seed 3 --out {tmp_path}\n" in advice
    advice = fails(capsys, "explain", "strategy=lpd,network=zoo/lqd")
    assert "did you mean 'lpd'" in advice
    plugin = tmp_path / "my plug-in.py"
    text = SPIRAL.read_text(encoding="utf-8").replace('"spiral"', '"mine"')
    plugin.write_text(text, encoding="utf-8")
    advice = fails(capsys, "explain", "strategy=mine,network=zoo/mine", "--plugin", os.fspath(plugin))
    assert f"pardec train mine --plugin '{plugin}'\n" in advice


def test_a_taken_name_and_a_missing_folder_are_named(capsys, tmp_path):
    assert "'lpd' is taken (built in)" in fails(capsys, "new-strategy", "lpd")
    assert "no such folder" in fails(capsys, "new-strategy", "mine", "--folder", os.fspath(tmp_path / "none"))
