"""pardec merge: what it prints, what it refuses, and the images that come along."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from harness.cell.cell import Cell
from harness.cli import main
from harness.images.merging import merge_images
from harness.images.shards import Shards
from harness.sweep.lock import only_sweep_in
from harness.sweep.process import Outcome
from harness.sweep.row import done_rows, make_row
from reports.frame import facets
from reports.site import write_report
from results.store import ResultStore, load_rows
from tests.quick_figures import quick_figures  # noqa: F401

CELL = Cell("lpd", network="lpd-l-256", images=4, threads=1)


def machine(folder: Path, host: str = "Xeon", shift: int = 0, upto: int = 4) -> Path:
    """A result folder with one row, its picture, and the first images of its run in shards of two."""
    store = ResultStore(folder)
    picture = store.artifact(CELL.key)
    picture.write_bytes(bytes([shift]))
    measured = {
        "environment": {"host_cpu": host, "gpu": None, "torch": "2.9.0"},
        "artifacts": {"trace": store.relative(picture)},
    }
    store.append(make_row(CELL, Outcome("ok", None, measured, 1.0), "2026-01-01T00:00:00+00:00"))
    shards = Shards.open(folder / "images" / CELL.key, CELL)
    for start in range(0, upto, 2):
        tokens = np.full((2, 3), start + shift)
        shards.write(range(start, start + 2), tokens, np.full((2, 3, 4, 4), start, np.uint8))
    return folder


def run_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").iterdir())


def test_a_merge_says_what_it_did_and_the_second_one_that_there_was_nothing_to_do(tmp_path, capsys):
    a, b, out = machine(tmp_path / "a"), machine(tmp_path / "b", "EPYC", 1), tmp_path / "out"
    assert main(["merge", str(a), str(b), "--into", str(out)]) == 0
    words = capsys.readouterr().out
    assert "2 rows of 1 cell in 2 environments: 2 added, 0 joined, 2 files copied" in words
    assert "6 files of images copied" in words
    assert [row.environment["host_cpu"] for row in load_rows(out)] == ["Xeon", "EPYC"]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["merge", str(b), str(a), str(out), "--into", str(out)]) == 0
    assert capsys.readouterr().out.endswith("0 added, 0 joined, 0 files copied\n")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_images_of_another_machine_stand_beside_and_equal_ones_are_shared(tmp_path):
    out = tmp_path / "out"
    sources = [machine(tmp_path / "a"), machine(tmp_path / "same"), machine(tmp_path / "b", shift=1)]
    assert merge_images(sources, out) == 6
    own, other = run_folders(out)
    assert own == CELL.key
    assert other.startswith(f"{CELL.key}-")
    assert Shards.read(out / "images" / own).tokens()[:, 0].tolist() == [0, 0, 2, 2]
    assert Shards.read(out / "images" / other).tokens()[:, 0].tolist() == [1, 1, 3, 3]
    assert merge_images(sources, out) == 0


def test_unfinished_runs_stay_and_are_completed_by_equal_ones(tmp_path):
    part, whole = machine(tmp_path / "part", upto=2), machine(tmp_path / "whole")
    assert merge_images([part], tmp_path / "out") == 0
    assert not (tmp_path / "out" / "images").exists()
    assert merge_images([whole], part) == 1
    assert Shards.read(part / "images" / CELL.key).tokens()[:, 0].tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", "--into", "out"], "no results at 'missing'"),
        (["empty", "--into", "out"], "no result rows (*.jsonl) in folder 'empty'"),
        (["a"], "the following arguments are required: --into"),
        (["--into", "out"], "the following arguments are required: RESULTS"),
        (["a", "--into", "a/rows.jsonl"], "results folder 'a/rows.jsonl' can't be written"),
    ],
)
def test_mistakes_are_one_line_and_make_no_folder(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    machine(Path("a"))
    Path("empty").mkdir()
    assert main(["merge", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("out").exists()


def test_a_broken_description_of_a_run_is_named(tmp_path, capsys):
    a = machine(tmp_path / "a")
    (a / "images" / CELL.key / "run.json").write_text(json.dumps({"cell": 4}))
    assert main(["merge", str(a), "--into", str(tmp_path / "out")]) == 2
    assert "run.json' can't be read" in capsys.readouterr().err


def test_nothing_is_merged_into_a_folder_in_which_a_sweep_runs(tmp_path, capsys):
    a, out = machine(tmp_path / "a"), machine(tmp_path / "out", "EPYC")
    with only_sweep_in(ResultStore(out)):
        assert main(["merge", str(a), "--into", str(out)]) == 2
    assert "another sweep is running" in capsys.readouterr().err
    assert len(load_rows(out)) == 1


def test_the_report_of_a_merged_folder_has_a_section_per_machine(tmp_path, quick_figures):  # noqa: F811
    a, b, out = machine(tmp_path / "a"), machine(tmp_path / "b", "EPYC", 1), tmp_path / "out"
    assert main(["merge", str(a), str(b), "--into", str(out)]) == 0
    split = facets(load_rows(out))
    assert [facet.keys["hardware"] for facet in split] == ["Xeon", "EPYC"]
    assert [len(facet.rows) for facet in split] == [1, 1]
    page = write_report(out).with_name("report.md").read_text()
    assert "2 cells (1 of them once more, in another environment)" in page
    assert "cpu (Xeon; threads: 1; torch 2.9.0)" in page
    assert "cpu (EPYC; threads: 1; torch 2.9.0)" in page


def test_a_done_cell_is_done_in_whatever_environment(tmp_path):
    store = ResultStore(machine(tmp_path / "a"))
    failed = dataclasses.replace(
        store.rows()[0], environment={"host_cpu": "EPYC"}, status="error", reason="why"
    )
    store.append(failed)
    assert [row.status for row in store.rows()] == ["ok", "error"]
    assert done_rows(store)[CELL.key].status == "ok"
