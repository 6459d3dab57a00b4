"""Workers import nothing from the folder in which a sweep runs, whatever is called like a module there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cell.cell import Cell, normalised
from harness.subject.pins import finished
from harness.sweep.process import ROOT, WORKER, run_in_worker, worker_environment
from harness.sweep.start_worker import settled

CANARY = "from pathlib import Path\nPath({mark!r}).touch()\nraise ImportError('from the working folder')\n"
NAMES = (
    "queue",
    "random",
    "reports/__init__",
    "harness/__init__",
    "results/__init__",
    "torch",
    "sitecustomize",
)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder full of modules that leave a mark when they are imported."""
    folder, mark = tmp_path / "work", tmp_path / "imported"
    for name in NAMES:
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CANARY.format(mark=str(mark)), encoding="utf-8")
    monkeypatch.chdir(folder)
    return mark


def test_a_cell_runs_beside_modules_of_the_same_names(tmp_path, small_zoo, monkeypatch, mark):
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    (tmp_path / "artifacts").mkdir()
    settings = {"images": 2, "batch": 2, "threads": 1, "once": True, "lossiness_images": 0}
    cell = finished(normalised(Cell("raster", zoo=str(small_zoo), **settings)))
    outcome = run_in_worker(cell, tmp_path, tmp_path / "log")
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert not mark.exists()


@pytest.mark.parametrize("path", [None, "", os.pathsep, f"{ROOT}{os.pathsep}", f"{os.pathsep}{ROOT}"])
def test_the_working_folder_is_no_place_of_modules(monkeypatch, mark, path):
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)
    code = "import sys, queue, random, reports.escape, harness.cell.cell; print(sys.path)"
    for command in ([*WORKER[:2], "-c", code], [sys.executable, "-c", code]):  # the worker, and its children
        done = subprocess.run(
            command, env=worker_environment(1), capture_output=True, text=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        assert os.getcwd() not in done.stdout
    assert not mark.exists()


def test_the_marks_would_have_been_left(mark):
    for name in ("queue", "reports"):
        mark.unlink(missing_ok=True)
        environment = worker_environment(1) | {"PYTHONPATH": "", "PYTHONSAFEPATH": ""}
        done = subprocess.run([sys.executable, "-c", f"import {name}"], env=environment, capture_output=True)
        assert done.returncode == 1
        assert mark.exists()


def test_our_folder_stands_behind_the_library_and_before_what_is_installed():
    library, installed = ["/usr/lib/python3.zip", "/usr/lib/python3"], ["/v/site-packages", "/elsewhere"]
    expected = ["/own", *library, "/ours", *installed]
    assert settled(["/ours", "/own", *library, *installed], "/ours") == expected
    assert settled(["", "/own", *library, *installed, "/ours"], "/ours") == expected
    assert settled(library, "/ours") == [*library, "/ours"]
