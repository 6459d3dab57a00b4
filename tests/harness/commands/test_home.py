"""``~`` in paths is the home folder wherever a path is written, and no folder of that name is made."""

import argparse
from pathlib import Path

import pytest

from harness.cell.cell import checked
from harness.cell.sweep_file import find
from harness.cli import main, parser
from harness.machine.cards import user_cards
from harness.sweep.find import find_cell
from pardec.files import path_of, spec_of


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder, work = tmp_path / "home", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(work)
    return folder


def test_home_and_what_only_looks_like_it(home):
    assert path_of("~/x.png") == home / "x.png"
    assert path_of("~") == home
    assert path_of("./~/x") == Path("./~/x")
    assert path_of("~no-such-user/x") == Path("~no-such-user/x")
    assert path_of("a/~/x") == Path("a/~/x")
    assert spec_of("imagefolder:~/pictures") == f"imagefolder:{home}/pictures"
    assert spec_of("fashion") == "fashion"


def flags_of_paths() -> list[tuple[str, argparse.Action]]:
    (commands,) = [one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return [
        (name, action)
        for name, command in commands.choices.items()
        for action in command._actions
        if action.type is Path
    ]


def test_every_flag_that_is_a_path_knows_home(home):
    flags = flags_of_paths()
    assert len(flags) > 25
    for name, _ in flags:
        command = parser()._subparsers._group_actions[0].choices[name]  # type: ignore[union-attr]
        assert command._registry_get("type", Path, Path) is path_of
    options = parser().parse_args(["sample", "strategy=lpd", "--out", "~/x.png", "--zoo=~/zoo"])
    assert (options.out, options.zoo) == (home / "x.png", home / "zoo")


def test_sample_writes_into_home_and_makes_no_folder_of_that_name(home, small_zoo):
    (home / "zoo").symlink_to(small_zoo)
    command = ["sample", "strategy=raster", "--zoo", "~/zoo", "--per-class", "1", "--classes", "1"]
    assert main([*command, "--out", "~/deep/x.png"]) == 0
    assert (home / "deep" / "x.png").is_file()
    assert not list(Path().iterdir())


def test_cells_sweep_files_and_the_environment_know_home(home, monkeypatch):
    for key in ("checkpoint", "tokenizer_checkpoint", "reference", "inception", "clean_reference"):
        assert checked(key, "~/a.pt", "here") == str(home / "a.pt")
    assert checked("inception", "download", "here") == "download"
    assert checked("data", "imagefolder:~/a", "here") == f"imagefolder:{home}/a"
    assert checked("label", "~/a", "here") == "~/a"
    assert find_cell("strategy=lpd,network=lpd-l-256,checkpoint=~/a.pt", {}, None).checkpoint == str(
        home / "a.pt"
    )
    (home / "mine.toml").write_text("", encoding="utf-8")
    assert find("~/mine.toml") == home / "mine.toml"
    monkeypatch.setenv("PARDEC_CARDS", "~/cards.toml")
    assert user_cards() == home / "cards.toml"


def test_flags_that_are_texts_know_home(home, small_zoo, capsys):
    command = ["explain", "strategy=raster", "--zoo", str(small_zoo)]
    for flag in ("--reference", "--inception", "--clean-reference"):
        options = parser().parse_args(["sweep", "quick", flag, "~/file"])
        assert vars(options)[flag.lstrip("-").replace("-", "_")] == "~/file"  # expanded by overrides
    from harness.commands.common import overrides

    options = parser().parse_args(["sweep", "quick", "--reference", "~/file", "--inception", "download"])
    found = overrides(options)
    assert (found["reference"], found["inception"]) == (str(home / "file"), "download")
    assert main(["check", "~/none.py"]) == 2
    assert str(home / "none.py") in capsys.readouterr().err
    assert main([*command, "--plugin", "~/none.py"]) == 2
    assert str(home / "none.py") in capsys.readouterr().err
    options = parser().parse_args(
        ["encode", "--tokenizer", "fsq", "--data", "imagefolder:~/p", "--out", "~/o"]
    )
    assert (options.data, options.out) == (f"imagefolder:{home}/p", home / "o")
