"""Command lines made from the parsers themselves: every flag of every command, with values of every kind."""

import argparse
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from harness.cli import COMMANDS, main, parser
from tests.fuzz.guard import harmless
from tests.fuzz.mutation import ODD_TEXTS

HEAVY = (
    "harness.commands.sweep_run.run_sweep",
    "harness.commands.explain_run.load",
    "harness.commands.generate_run.load",
    "harness.commands.likelihood_run.load",
    "harness.commands.lossiness_run.load",
    "harness.commands.sample_run.load",
    "harness.cost.calibrate.calibrate",
    "harness.commands.gpu_check_run.run_and_show",
    "harness.commands.train_run._train",
    "harness.train.at_scale.train_at_scale",
    "harness.weights.download._download",
    "harness.regress.gate.compare",
    "harness.regress.gate.record",
    "harness.regress.selftest.selftest",
    "harness.commands.lossiness_run.exact_lines",
    "strategies.decoding.contract.check_strategy",
    "harness.commands.encode_run.open_tokenizer",
)
"""Where a command line that was understood begins to compute; nothing of it is part of these tests."""
CELLS = (
    "strategy=lpd,steps=10",
    "strategy=par",
    "strategy=lpd,steps=999999999999",
    "strategy=raster,batch=1000000000000",
    "strategy=arpg,guidance=nan",
    "strategy=lpd,network=lpd-xl-256,checkpoint=random,guidance=2",
    "0123456789abcdef",
    "strategy=lpd,options=3",
    "strategy=real",
    "strategy=lpd,seed=1e999",
    "quick:ab",
    "x=",
    "strategy=lpd,label=[red]",
    "strategy=lpd,network=zoo/../../x",
    "strategy=rar,network=rar-b,checkpoint=random,steps=1",
)
FILES = (
    "rows.jsonl",
    "garbage",
    "folder",
    "missing",
    "missing/deeper/x.png",
    "empty.toml",
    "sweep.toml",
    "loop",
    "rows.jsonl/x",
    "x.png",
    "out",
    "out.json",
    "y" * 300,
    "plugin.py",
    "run",
)
NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "7",
    "1000000000",
    "1000000000000000000000",
    "1e400",
    "nan",
    "inf",
    "1.5",
    "x",
    "",
)
NAMES = (
    "lpd",
    "raster",
    "quick",
    "gate",
    "cpu",
    "cuda:99",
    "meta",
    "float16",
    "float32",
    "h200",
    "here",
    "2x2",
    "99x99",
    "0/2",
    "2/0",
    "random",
    "halton",
    "steps<=8",
    "strategy=lpd|par",
    "0,1",
    "3",
    "fashion",
    "mnist",
    "imagefolder:folder",
    "imagefolder:",
    "vq-llamagen",
    "fsq",
    "download",
    "common",
    "llamagen-b",
    "1.1,9",
    "causality",
)
TEXTS = tuple(text for text in ODD_TEXTS if "\x00" not in text and "\ud800" not in text and len(text) < 1000)


class Computing(Exception):
    """The command line was understood."""


def arguments() -> st.SearchStrategy[list[str]]:
    """Whole command lines of every command."""
    commands = _subparsers(parser())
    return st.sampled_from(COMMANDS).flatmap(lambda name: _line(name, commands[name]))


def _subparsers(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    action = next(one for one in top._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


def _line(name: str, command: argparse.ArgumentParser) -> st.SearchStrategy[list[str]]:
    pieces, must = [], []
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        values = _values(action)
        if not action.option_strings:
            must.append(values if action.nargs not in ("?", "*") else st.one_of(st.just([]), values))
        elif action.nargs == 0:
            pieces.append(st.just([action.option_strings[0]]))
        elif action.required:
            must.append(values.map(lambda found, flag=action.option_strings[0]: [flag, *found]))
        else:
            pieces.append(values.map(lambda found, flag=action.option_strings[0]: [flag, *found]))
    chosen = st.lists(st.one_of(pieces), max_size=4) if pieces else st.just([])
    whole = st.tuples(st.tuples(*must), chosen).map(
        lambda two: [word for part in (*two[0], *two[1]) for word in part]
    )
    return whole.map(lambda words: [name, *words, *(["--dry-run"] if name == "sweep" else [])])


def _values(action: argparse.Action) -> st.SearchStrategy[list[str]]:
    """Words for one argument: mostly of its kind, sometimes of any."""
    own: dict[Any, tuple[str, ...]] = {int: NUMBERS, float: NUMBERS, Path: FILES}
    kinds = own.get(
        action.type, CELLS if action.dest in ("cell", "cells") else (*NAMES, *FILES[:8], *CELLS[:3])
    )
    word = st.one_of(
        st.sampled_from(kinds), st.sampled_from(kinds), st.sampled_from((*NAMES, *TEXTS, *NUMBERS))
    )
    return st.lists(word, min_size=1, max_size=2 if action.nargs in ("*", "+") else 1)


def make_place(folder: Path, rows: bytes, plugin: bytes) -> None:
    """The files that ``FILES`` names, or leaves out."""
    (folder / "folder").mkdir()
    (folder / "rows.jsonl").write_bytes(rows)
    (folder / "garbage").write_bytes(b"\xff\x00PK\x03\x04" * 30)
    (folder / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "empty.toml").write_bytes(b"")
    (folder / "sweep.toml").write_text('[grid]\nstrategy = "lpd"\nsteps = [8, 10]\n')
    (folder / "plugin.py").write_bytes(plugin)
    (folder / "loop").symlink_to("loop")


@contextlib.contextmanager
def nothing_computed() -> Iterator[None]:
    """Ends every command where its work would begin."""

    def stop(*_: Any, **__: Any) -> None:
        raise Computing

    with pytest.MonkeyPatch.context() as patch:
        for name in HEAVY:
            patch.setattr(name, stop)
        yield


def check_line(words: list[str], folder: Path, run: Callable[[list[str]], int] = main) -> str:
    """Runs a command line in ``folder``: it ends well, or with 2 and one line, which is returned."""
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            harmless(folder),
            nothing_computed(),
        ):
            code = run(words)
    except Computing:
        return ""
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 99
    finally:
        os.chdir(before)
    assert code in (0, 1, 2), (code, err.getvalue())
    if code == 2:
        line = err.getvalue()
        assert line.startswith("pardec: "), line
        assert line.count("\n") == 1, line
        assert line[:-1].isprintable(), line
    return err.getvalue()
