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


@pytest.mark.parametrize(("name", "file"), [("columns", "columns.py"), ("my-columns2", "my_columns2.py")])
def test_a_new_strategy_keeps_the_whole_contract(capsys, tmp_path, name, file):
    assert main(["new-strategy", name, "--folder", os.fspath(tmp_path)]) == 0
    path = tmp_path / file
    assert os.fspath(path) in capsys.readouterr().out
    assert len(path.read_text().splitlines()) < 60
    assert "@" not in path.read_text().replace("@dataclass", "")
    assert main(["check", os.fspath(path)]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert f"{name}: 24 pass, 0 fail, 0 expected failure, 3 not applicable" in out


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


def test_a_taken_name_and_a_missing_folder_are_named(capsys, tmp_path):
    assert "'lpd' is taken (built in)" in fails(capsys, "new-strategy", "lpd")
    assert "no such folder" in fails(capsys, "new-strategy", "mine", "--folder", os.fspath(tmp_path / "none"))
