"""Cells that are named by a sweep and a key: the file's own, or one that a dry run with flags shows."""

import dataclasses
from pathlib import Path

import pytest

from harness.cli import main
from harness.commands import claims_command
from harness.sweep import find
from harness.sweep.find import find_cell
from harness.sweep.sweep import sweep_cells
from pardec.errors import UserError
from results.store import ResultStore, folders_of_rows
from tests.harness.cell.test_recorded import row_of

SWEEP = """
[defaults]
images = 8
batch = 4
threads = 1
[[include]]
strategy = ["real", "arpg"]
steps = 6
[[include]]
strategy = "lpd"
steps = [6, 10]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(SWEEP)
    return str(path)


def keys(sweep: str, zoo: Path, **flags) -> list[str]:
    return [cell.key for cell in sweep_cells(sweep, overrides={"zoo": str(zoo), **flags}).cells]


def test_a_key_of_the_file_is_found_whatever_the_flags_change(sweep, small_zoo):
    key = keys(sweep, small_zoo)[2]
    changes = {"zoo": str(small_zoo), "batch": 2, "images": 1000}
    found = find_cell(f"{sweep}:{key}", changes, None)
    assert (found.strategy, found.steps, found.batch, found.images) == ("lpd", 6, 2, 1000)
    assert find_cell(f"{sweep}:{key[:10]}", {"zoo": str(small_zoo)}, None).batch == 4


def test_a_key_of_a_dry_run_with_flags_is_found_with_the_same_flags(sweep, small_zoo):
    key = keys(sweep, small_zoo, batch=2)[2]
    assert key not in keys(sweep, small_zoo)
    found = find_cell(f"{sweep}:{key}", {"zoo": str(small_zoo), "batch": 2}, None)
    assert (found.steps, found.batch) == (6, 2)
    with pytest.raises(UserError, match="0 cells of sweep"):
        find_cell(f"{sweep}:{key}", {"zoo": str(small_zoo), "batch": 3}, None)


def test_what_a_cell_leaves_open_is_settled_after_the_flags(tmp_path, small_zoo):
    """Of cells on the CPU, packed products are chosen, which no other device has."""
    path = tmp_path / "open.toml"
    path.write_text('[grid]\nstrategy = "lpd"\nsteps = 6\nproducts = "auto"\nthreads = 1\n')
    (key,) = keys(str(path), small_zoo)
    found = find_cell(f"{path}:{key}", {"zoo": str(small_zoo), "device": "cuda"}, None)
    assert (found.device, found.products) == ("cuda", "auto")


def test_a_cell_whose_file_is_missing_hides_no_other(sweep, tmp_path, small_zoo, monkeypatch):
    """It may itself be meant, with random weights."""
    monkeypatch.setenv("PARDEC_CHECKPOINTS", str(tmp_path))
    path = tmp_path / "published.toml"
    published = 'strategy = "raster"\nnetwork = "llamagen-b-256"\nsteps = 256\nbatch = 1\nthreads = 1\n'
    path.write_text(f"[[include]]\n{published}{SWEEP}")
    places = {"zoo": str(small_zoo), "checkpoints": str(tmp_path)}
    flags = places | {"checkpoint": "random"}
    random, *_, last = sweep_cells(str(path), overrides=flags).cells
    assert find_cell(f"{path}:{random.key}", flags, None).network == "llamagen-b-256"
    with pytest.raises(UserError, match=r"none of the cells that can run here .*: no c2i_B_256\.pt"):
        find_cell(f"{path}:{random.key}", places, None)
    own = keys(sweep, small_zoo)[-1]
    assert find_cell(f"{path}:{own}", places, None).steps == last.steps == 10


@pytest.mark.parametrize(
    "command", [["explain", "--batch", "8"], ["lossiness", "--orders"], ["likelihood", "--orders", "own"]]
)
def test_commands_take_a_sweep_and_a_key(sweep, small_zoo, capsys, monkeypatch, command):
    monkeypatch.setattr("harness.commands.lossiness_run._IMAGES", 2)
    flags = ["--zoo", str(small_zoo), "--threads", "1"]
    if command[0] == "likelihood":
        monkeypatch.setattr("harness.commands.likelihood_run.shown", few_shown)
    arpg = keys(sweep, small_zoo)[1]
    assert main([command[0], f"{sweep}:{arpg}", *command[1:], *flags]) == 0
    assert "arpg" in capsys.readouterr().out.lower()


def few_shown(subject, images):
    from harness.lossiness.likelihood import shown

    assert images == 1000
    return shown(subject, 2)


def test_an_anchor_is_named(sweep, small_zoo, capsys):
    real = keys(sweep, small_zoo)[0]
    assert main(["explain", f"{sweep}:{real}", "--zoo", str(small_zoo)]) == 2
    assert "is an anchor (Real images)" in capsys.readouterr().err


def test_a_sweep_that_has_only_begun_hides_no_rows(sweep, small_zoo, tmp_path, capsys, monkeypatch):
    runs = tmp_path / "runs"
    cell = sweep_cells(sweep, "steps=10", {"zoo": str(small_zoo)}).cells[0]
    ResultStore(runs / "begun")
    ResultStore(runs / "done").append(row_of(cell, images=cell.images))
    assert (runs / "begun" / "rows.jsonl").read_bytes() == b""
    assert folders_of_rows(runs) == [runs / "done"]
    monkeypatch.setattr(find, "RESULTS", runs)
    assert dataclasses.replace(find_cell(cell.key, {}, None), pins=cell.pins) == cell
    monkeypatch.setattr(claims_command, "RESULTS", runs)
    assert main(["claims"]) == 0
