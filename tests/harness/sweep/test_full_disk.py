"""Disks without room and folders that can't be written, real ones: a tmpfs of a few kilobytes.

Mounting takes root, or a namespace of one's own: ``unshare -Urm python -m pytest`` and this file.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.cli import main
from harness.images.shards import Shards
from harness.sweep.process import ROOT, run_in_worker
from harness.sweep.sweep import run_sweep
from pardec.errors import UserError
from results.schema import Row, row_to_json
from results.store import ResultStore, load_rows
from tests.harness.sweeps_at_work import STAND_IN, lines_in
from tests.results.test_result_store import cell as row_of

NO_ROOM = "No space left on device"


class Disk:
    """A tmpfs; ``fill`` leaves so many bytes (whole pages) of it, ``grow`` makes room."""

    def __init__(self, place: Path, size: str) -> None:
        self.place = place
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)

    def fill(self, but: int = 0) -> None:
        ballast = self.place / "ballast"
        with ballast.open("wb", buffering=0) as file:
            room = os.fstatvfs(file.fileno())
            file.write(bytes(room.f_bavail * room.f_frsize - but))

    def grow(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=16m", self.place], check=True)

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Disk]]:
    made: list[Disk] = []

    def make(size: str) -> Disk:
        try:
            made.append(Disk(tmp_path / f"disk{len(made)}", size))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting is not permitted here")
        return made[-1]

    yield make
    for one in made:
        subprocess.run(["umount", one.place], check=True)


def sweep_of(labels: list[str]) -> Sweep:
    cells = (Cell("lpd", label=label, seed=seed, threads=1) for seed, label in enumerate(labels))
    return Sweep("test", "test", tuple(cells))


def one_line(text: str, *words: str) -> None:
    assert text.count("\n") == (1 if text.endswith("\n") else 0)
    for word in words:
        assert word in text


def long(row: Row) -> Row:
    return Row(**vars(row) | {"options": {"padding": "x" * 9000}})


def test_a_row_for_which_there_is_no_room_leaves_those_from_before(disk):
    full = disk("64k")
    store = ResultStore(full.place)
    store.append(row_of(1))
    store.append(row_of(2, "error"))
    before = store.path.read_bytes()
    full.fill(but=4096)  # the first page of a line fits, the next does not
    for row in (long(row_of(3)), long(row_of(2))):  # a new line, and a file written anew
        with pytest.raises(UserError) as error:
            store.append(row)
        one_line(str(error.value), str(full.place), NO_ROOM, "make room and start again")
        assert store.path.read_bytes() == before
        assert not list(full.place.glob(".*.partial"))
    full.grow()
    store.append(long(row_of(3)))
    assert store.append(row_of(2, "ok", 5)).status == "ok"
    assert [row.status for row in store.rows()] == ["ok", "ok", "ok"]


def test_a_short_write_of_a_row_is_taken_back(tmp_path, monkeypatch):
    """What a tmpfs does by pages other disks may do anywhere in a line."""
    store = ResultStore(tmp_path)
    store.append(row_of(1))
    before, write, calls = store.path.read_bytes(), os.write, []

    def half(descriptor: int, line: bytes) -> int:
        calls.append(len(line))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, NO_ROOM)
        return write(descriptor, line[: len(line) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(UserError, match=NO_ROOM):
        store.append(row_of(2))
    monkeypatch.undo()
    assert len(calls) == 2
    assert store.path.read_bytes() == before
    store.append(row_of(2))
    assert lines_in(tmp_path) == 2


def test_a_sweep_that_fills_the_disk_with_rows_stops_and_goes_on_where_there_is_room(disk):
    full = disk("64k")
    folder, sweep = full.place / "results", sweep_of(["ok"] * 6)
    (full.place / "ballast").write_bytes(bytes(48 * 1024))
    with pytest.raises(UserError) as error:
        run_sweep(sweep, folder, STAND_IN)
    one_line(str(error.value), str(folder), NO_ROOM, "make room and start again")
    kept = (folder / "rows.jsonl").read_bytes()
    assert 0 < kept.count(b"\n") < 6
    assert kept.endswith(b"\n")
    full.grow()
    summary = run_sweep(sweep, folder, STAND_IN)
    assert (summary.exit_code, summary.skipped) == (0, kept.count(b"\n"))
    assert [row.status for row in load_rows(folder)] == ["ok"] * 6
    assert all(len(row.attempts) == 1 for row in load_rows(folder))


def test_an_artifact_for_which_there_is_no_room_stops_the_sweep(disk):
    full = disk("128k")
    sweep = sweep_of(["ok", "store", "ok"])
    with pytest.raises(UserError) as error:
        run_sweep(sweep, full.place, STAND_IN)
    one_line(str(error.value), "cell 'store", NO_ROOM, "make room and start again")
    assert [row.status for row in load_rows(full.place)] == ["ok", "error"]
    assert not list(full.place.glob("artifacts/.*"))
    full.grow()
    assert run_sweep(sweep, full.place, STAND_IN).exit_code == 0
    assert [[a["status"] for a in row.attempts] for row in load_rows(full.place)] == [
        ["ok"],
        ["error", "ok"],
        ["ok"],
    ]


def test_a_log_for_which_there_is_no_room_costs_no_status(tmp_path):
    """The real worker: its traceback can't be written, what it says of the cell is heard all the same."""
    outcome = run_in_worker(Cell("no-such-strategy", threads=1), tmp_path, Path("/dev/full"))
    assert outcome.status == "error"
    assert "unknown strategy 'no-such-strategy'" in outcome.reason


def test_a_shard_of_images_for_which_there_is_no_room_leaves_the_others(disk):
    full = disk("64k")
    shards = Shards.open(full.place / "run", Cell("lpd", images=4))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    tokens = np.zeros((2, 4), dtype=np.int32)
    shards.write(range(2), tokens, pixels)
    full.fill(but=4096)
    with pytest.raises(OSError, match=NO_ROOM):
        shards.write(range(2, 4), tokens, pixels)
    assert not list((full.place / "run").glob(".*"))
    assert (next(shards.parts("images")) == pixels).all()


def test_a_report_for_which_there_is_no_room_is_one_line_and_keeps_the_old_page(disk, tmp_path, capsys):
    full = disk("64k")
    ResultStore(tmp_path / "rows").append(row_of(1))
    page = full.place / "report.html"
    page.write_text("old")
    full.fill()
    assert main(["report", "--results", str(tmp_path / "rows"), "--out", str(full.place)]) == 2
    one_line(capsys.readouterr().err, "pardec: report", str(full.place), "can't be written", NO_ROOM)
    assert page.read_text() == "old"


def test_a_folder_that_may_only_be_read_is_one_line(disk, small_zoo, capsys):
    still = disk("64k")
    (still.place / "rows.jsonl").write_text(row_to_json(row_of(1)) + "\n")
    still.read_only()
    words = ["sweep", "quick", "-k", "strategy=real", "--zoo", str(small_zoo), "--results", str(still.place)]
    assert main(words) == 2
    line = f"pardec: results folder '{still.place}' can't be written: Read-only file system\n"
    assert capsys.readouterr().err == line
    assert [row.cell for row in load_rows(still.place)] == [row_of(1).cell]


def test_output_into_a_full_file_is_one_line():
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "harness.cli", "list"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    one_line(done.stderr, "pardec: ", "can't be written", NO_ROOM)
