"""The store loses nothing: torn lines, kill -9, two writers, cells tried again."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pardec.errors import UserError
from results.schema import Row, row_to_json
from results.store import ResultStore, load_rows, results_folder
from tests.results.test_result_schema import make_row


def cell(number: int, status: str = "ok", started: int = 0, **changes: Any) -> Row:
    started_at = f"2026-01-01T00:00:{started:02d}+00:00"
    reason = None if status == "ok" else f"cause {started}"
    attempt = {"started_at": started_at, "wall_s": 1.0, "status": status, "reason": reason}
    base = make_row(cell=f"{number:016x}", status=status, reason=reason, started_at=started_at, **changes)
    return dataclasses.replace(base, attempts=[attempt])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "rows.jsonl").read_text().splitlines()]


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    store = ResultStore(tmp_path / "new" / "folder")
    rows = [cell(number) for number in (3, 1, 2)]
    for row in rows:
        store.append(row)
    assert store.rows() == rows == load_rows(store.folder) == load_rows(store.path)


def test_a_cell_tried_again_stays_one_line_with_its_attempts(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.append(cell(1, "oom", 1))
    store.append(cell(2))
    store.append(cell(1, "timeout", 2))
    merged = store.append(cell(1, "ok", 3))
    assert [line["cell"] for line in lines(tmp_path)] == [cell(1).cell, cell(2).cell]
    assert [attempt["status"] for attempt in merged.attempts] == ["oom", "timeout", "ok"]
    assert merged in store.rows()
    assert merged.status == "ok"
    assert store.append(merged) == merged


def test_a_failure_does_not_replace_an_ok_row(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.append(cell(1, "ok", 1))
    kept = store.append(cell(1, "error", 2))
    assert kept.status == "ok"
    assert [attempt["status"] for attempt in kept.attempts] == ["ok", "error"]


@pytest.mark.parametrize("cut", [1, 20, 500, -1])
def test_a_torn_last_line_is_no_row_and_is_cut_off(tmp_path: Path, cut: int) -> None:
    store = ResultStore(tmp_path)
    store.append(cell(1))
    with store.path.open("a") as file:
        file.write(row_to_json(cell(2))[:cut])
    assert store.rows() == [cell(1)]
    assert load_rows(tmp_path) == [cell(1)]
    store.append(cell(3))
    assert [line["cell"] for line in lines(tmp_path)] == [cell(1).cell, cell(3).cell]


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.path.write_text(row_to_json(cell(1)))
    assert store.rows() == [cell(1)]
    store.append(cell(2))
    assert len(lines(tmp_path)) == 2


def test_a_bad_line_amid_the_file_is_named(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.path.write_text(row_to_json(cell(1)) + "\n{torn\n" + row_to_json(cell(2)) + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl line 2: not a JSON row"):
        store.rows()


def test_what_a_killed_rewrite_leaves_is_removed(tmp_path: Path) -> None:
    ResultStore(tmp_path).append(cell(1))
    (tmp_path / ".rows.jsonl.123.partial").write_text("half a ro")
    assert ResultStore(tmp_path).rows() == [cell(1)]
    assert not list(tmp_path.glob(".*.partial"))


def test_only_rows_stand_in_jsonl_files(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.append(cell(1))
    path = store.artifact(cell(1).cell)
    path.write_bytes(b"")
    assert store.relative(path) == f"artifacts/{cell(1).cell}.npz"
    assert [p.name for p in tmp_path.rglob("*.jsonl")] == ["rows.jsonl"]


WRITER = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from test_result_store import cell
from results.store import ResultStore
store = ResultStore({folder!r})
print("ready", flush=True)
for number in range({first}, {last}):
    store.append(cell(number, "error", 1))
    store.append(cell(number % 5, "error", number % 60))
"""


def writer(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    root = str(here.parents[1])
    code = WRITER.format(root=root, here=str(here), folder=str(folder), first=first, last=last)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_writers_lose_no_row(tmp_path: Path) -> None:
    writers = [writer(tmp_path, 100, 115), writer(tmp_path, 200, 215)]
    assert [process.wait(60) for process in writers] == [0, 0]
    for process in writers:
        assert process.stdout is not None
        process.stdout.close()
    cells = [line["cell"] for line in lines(tmp_path)]
    assert len(cells) == len(set(cells))
    assert {f"{n:016x}" for n in (*range(5), *range(100, 115), *range(200, 215))} == set(cells)


def test_a_kill_before_the_disk_has_it_leaves_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResultStore(tmp_path)
    store.append(cell(1, "oom", 1))
    store.append(cell(2))
    before = store.rows()

    class Killed(BaseException):
        """As SIGKILL: nothing catches it."""

    def dying(descriptor: int) -> None:
        raise Killed

    for row, known in ((cell(1, "ok", 2), before), (cell(3), [*before, cell(3)])):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", dying)
            with pytest.raises(Killed):
                store.append(row)
        assert ResultStore(tmp_path).rows() == known


@pytest.mark.parametrize(
    ("make", "text"),
    [
        ("missing", "no results at"),
        ("empty folder", r"no result rows \(\*\.jsonl\)"),
        ("empty file", "it is empty"),
        ("lock only", "it is empty"),
    ],
)
def test_nothing_to_load_is_one_clear_line(tmp_path: Path, make: str, text: str) -> None:
    place = tmp_path / "results"
    if make == "empty file":
        place.write_text("")
    elif make != "missing":
        place.mkdir()
    if make == "lock only":
        ResultStore(place)
    with pytest.raises(UserError, match=text) as caught:
        load_rows(place)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_runs_points_to_a_run(tmp_path: Path) -> None:
    ResultStore(tmp_path / "quick").append(cell(1))
    with pytest.raises(UserError, match=f"did you mean '{tmp_path}/quick'"):
        load_rows(tmp_path)


def test_files_of_one_folder_merge_by_cell(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(row_to_json(cell(1, "ok", 2)) + "\n")
    (tmp_path / "b.jsonl").write_text(row_to_json(cell(1, "oom", 1)) + "\n")
    (row,) = load_rows(tmp_path)
    assert [attempt["status"] for attempt in row.attempts] == ["oom", "ok"]
    assert row.status == "ok"
    assert results_folder(tmp_path / "a.jsonl") == results_folder(tmp_path) == tmp_path


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="can't be written"):
        ResultStore(blocked / "results")
    with pytest.raises(UserError, match="can't be written"):
        ResultStore("/proc/results")
