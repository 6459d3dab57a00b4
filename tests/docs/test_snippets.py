"""Every command and snippet of README and docs: parsed here, run in the slow set."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from harness.cell import sweep_file
from harness.cell.cell import ANCHORS
from harness.cell.inline import inline_cell
from harness.cli import parser
from harness.machine.cards import card_named
from harness.weights.fetch import published_files
from strategies.decoding import registry
from strategies.decoding.contract import check_strategy
from tests.docs.blocks import ROOT, TEXTS, blocks, commands, files, mentions

COMMANDS = commands()
PLUGINS = {name: text for name, text in files().items() if name.endswith(".py")}
QUICK_CHECKS = (
    "declares_itself",
    "imports_nothing_foreign",
    "plans_are_valid",
    "every_position_once",
    "causal",
)
OLDER = ("architecture.md", "training-the-tier.md")
PLACEHOLDERS = {"NAME", "FILE", "DIR", "CELL", "RUN", "KEY", "A", "B"}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder that holds every file of the texts, with their strategies known."""
    monkeypatch.setattr(registry, "_plugins", {})
    for name, text in files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in PLUGINS:
        registry.add_plugin(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_says_what_it_is():
    assert {one.language for one in blocks() if one.page not in OLDER} == {"sh", "python", "toml", "text"}
    assert len(COMMANDS) > 40


def test_every_command_can_be_called(desk):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page, words in COMMANDS:
        where = f"{page}: {' '.join(words)}"
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), where
        elif words[0] == "torchrun":
            parse(words[words.index("harness.cli") + 1 :], where)
        elif words[0] == "pardec":
            parse(words[1:], where)
        else:
            assert words[0] in ("source", "pip", "python"), where


def test_every_command_that_a_text_mentions_exists(desk):
    for page, words in mentions():
        where = f"{page}: {' '.join(words)}"
        command = next(one for one in parser(words[1])._actions if one.dest == "command").choices[words[1]]
        flags = {flag for action in command._actions for flag in action.option_strings}
        assert {word for word in words if word.startswith("-")} <= flags, where
        if (
            words[1] == "sweep"
            and len(words) > 2
            and words[2] in ("quick", "seeds", "windows", "imagenet256")
        ):
            parse(words[1:], where)


def parse(words, where):
    """Hold a command to its parser, and its names, settings and conditions to what there is."""
    options = parser(words[0]).parse_args(words)
    for text in (
        getattr(options, "sweep", None),
        getattr(options, "cell", None),
        *getattr(options, "cells", ()),
    ):
        if text and "=" in text and "VALUE" not in text and not text.endswith(".toml"):
            inline_cell(text, {}, ANCHORS)
    if words[0] == "sweep" and "VALUE" not in options.sweep:
        sweep = sweep_file.load(options.sweep, {}, options.also)
        if options.select:
            assert sweep_file.select(sweep.cells, ",".join(options.select), finished=False), where
    if getattr(options, "device_card", None):
        card_named(options.device_card)
    if words[0] == "fetch":
        assert set(options.names) - PLACEHOLDERS <= set(published_files()), where
    for path in getattr(options, "plugin", ()):
        assert path.is_file() or path.stem in PLACEHOLDERS, where


@pytest.mark.parametrize("name", PLUGINS)
def test_every_strategy_keeps_the_contract(desk, name):
    card = check_strategy(find(name), only=QUICK_CHECKS)
    assert card.passed, card.failures


@pytest.mark.slow
@pytest.mark.parametrize("name", PLUGINS)
def test_every_strategy_passes_the_whole_card(desk, name):
    card = check_strategy(find(name))
    assert card.passed, card.failures


def find(name):
    """The strategy of a file that the desk has registered."""
    return registry.get(next(one for one, path in registry._plugins.items() if path.name == name))


@pytest.mark.parametrize(
    "page", sorted({one.page for one in blocks() if one.language == "python" and not one.title})
)
def test_python_runs(page, monkeypatch):
    """The blocks of a page one after the other; what they define as tests is called."""
    monkeypatch.chdir(ROOT)
    names = {"__name__": page}
    for one in blocks():
        if (one.page, one.language, one.title) == (page, "python", None):
            exec(compile(one.text, page, "exec"), names)
    for name, test in names.items():
        if name.startswith("test_"):
            test("declares_itself")


def test_tables_of_toml_are_what_they_say(desk):
    texts = {one.title: one.text for one in blocks() if one.language == "toml"}
    assert set(texts) == {"mine.toml", "with-spiral.toml", "pyproject.toml"}
    assert len(sweep_file.load("mine.toml").cells) == 2 + 2 * 2 + 2
    assert {cell.strategy for cell in sweep_file.load("with-spiral.toml").cells} == {"arpg", "spiral"}
    points = tomllib.loads(texts["pyproject.toml"])["project"]["entry-points"]
    assert list(points) == [registry.GROUP]


def test_links_lead_somewhere():
    for path in TEXTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http", "#")):
                assert (path.parent / target.partition("#")[0]).exists(), f"{path.name}: {target}"


RUN = ("list", "explain", "sample", "check", "new-strategy", "compare", "lossiness", "sweep")
LONG = ("png", "imagenet256", "mine.toml", "with-spiral.toml", "cuda", "ray", "windows", "seeds", "enlarge")


def runs(words):
    """Whether a command needs nothing but networks that ship, and no hours."""
    known = words[0] == "pardec" and words[1] in RUN
    return (
        known and not PLACEHOLDERS & set(words) and not any(part in word for part in LONG for word in words)
    )


ONCE = {tuple(words): page for page, words in reversed(COMMANDS) if runs(words)}
"""Commands -> the first page that tells them."""


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(set(ONCE.values())))
def test_commands_run(desk, page):
    """Sweeps of a file are listed, those of one cell run on a few images."""
    (desk / "results").symlink_to(ROOT / "results", target_is_directory=True)
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    for words in [words[1:] for words in reversed(ONCE) if ONCE[words] == page]:
        call = [word.replace("results/runs/quick", "here") for word in words]
        if call[0] == "sweep":
            alone = page == "README.md" and "--also" in call
            few = ["--max-images", "4", *(["--no-report"] if page != "README.md" else [])]
            if alone:
                call += ["-k", "strategy=spiral", "--results", "here"]
            call += few if alone or "=" in call[1] else ["--dry-run"]
        if call[0] == "lossiness" and "=" in call[1]:
            call += ["--images", "10"]
        command = [sys.executable, "-m", "harness.cli", *call]
        done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(call)}\n{done.stderr[-2000:]}"
