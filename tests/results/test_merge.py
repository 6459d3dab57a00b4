"""Merging loses nothing, changes nothing the second time, and survives a kill."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from test_environments import EPYC, XEON, tried

from pardec.errors import UserError
from results import merge as merging
from results.merge import merge
from results.schema import Row, row_to_json
from results.store import ResultStore, load_rows

DATA = Path(__file__).parent / "data"


def folder(place: Path, rows: list[Row], content: str = "") -> Path:
    """A result folder whose ok rows have a picture each, with the content and the cell in it."""
    store = ResultStore(place)
    for row in rows:
        path = store.artifact(row.cell)
        if row.status == "ok":
            path.write_text(f"{content} {row.cell}")
            row = dataclasses.replace(row, artifacts={"trace": store.relative(path)})
        store.append(row)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def pictures(place: Path) -> dict[str, str]:
    """Host of each row of cell 1 -> what its picture holds."""
    return {
        (row.environment or {})["host_cpu"]: (place / row.artifacts["trace"]).read_text()
        for row in load_rows(place)
        if row.cell == f"{1:016x}"
    }


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Path, Path]:
    a = folder(tmp_path / "a", [tried(1, XEON, 1), tried(2, XEON, 2, "oom"), tried(3, XEON, 3)], "a")
    b = folder(tmp_path / "b", [tried(1, EPYC, 4), tried(2, XEON, 5), tried(4, EPYC, 6, "error")], "b")
    return a, b


def test_rows_of_one_environment_join_and_those_of_another_stand_beside(
    tmp_path: Path, machines: tuple[Path, Path]
) -> None:
    out = tmp_path / "out"
    merged = merge(machines, out)
    rows = load_rows(out)
    assert [(row.cell[-1], (row.environment or {})["host_cpu"], row.status) for row in rows] == [
        ("1", "Xeon", "ok"),
        ("2", "Xeon", "ok"),
        ("3", "Xeon", "ok"),
        ("1", "EPYC", "ok"),
        ("4", "EPYC", "error"),
    ]
    assert [attempt["status"] for attempt in rows[1].attempts] == ["oom", "ok"]
    assert pictures(out) == {"Xeon": f"a {1:016x}", "EPYC": f"b {1:016x}"}
    assert str(merged) == "5 rows of 4 cells in 2 environments: 5 added, 0 joined, 4 files copied"


def test_merging_again_changes_no_byte(tmp_path: Path, machines: tuple[Path, Path]) -> None:
    a, b = machines
    out = tmp_path / "out"
    merge([a], out)
    joined = merge([b], out)
    assert (joined.added, joined.changed, joined.copied) == (2, 1, 2)
    before = contents(out)
    stamp = (out / "rows.jsonl").stat().st_mtime_ns
    for sources in ([a], [b], [b, a], [out], [out, a, out / "rows.jsonl"], [a / "rows.jsonl"]):
        again = merge(sources, out)
        assert (again.added, again.changed, again.copied) == (0, 0, 0)
    assert contents(out) == before
    assert (out / "rows.jsonl").stat().st_mtime_ns == stamp


def test_the_order_of_merging_makes_no_difference_to_the_rows(
    tmp_path: Path, machines: tuple[Path, Path]
) -> None:
    a, b = machines
    merge([a, b], tmp_path / "ab")
    merge([b], tmp_path / "ba")
    merge([a], tmp_path / "ba")

    def plain(place: Path) -> set[str]:
        return {row_to_json(dataclasses.replace(row, artifacts={})) for row in load_rows(place)}

    assert plain(tmp_path / "ab") == plain(tmp_path / "ba")
    assert pictures(tmp_path / "ab") == pictures(tmp_path / "ba")


def test_a_later_try_brings_its_picture_and_the_old_one_is_not_overwritten(
    tmp_path: Path, machines: tuple[Path, Path]
) -> None:
    out = tmp_path / "out"
    merge([machines[0]], out)
    old = (out / "artifacts" / f"{1:016x}.npz").read_bytes()
    merge([folder(tmp_path / "c", [tried(1, XEON, 9)], "c")], out)
    assert pictures(out) == {"Xeon": f"c {1:016x}"}
    assert (out / "artifacts" / f"{1:016x}.npz").read_bytes() == old


def test_rows_of_old_schemas_are_upgraded(tmp_path: Path) -> None:
    source = DATA / "schema-1.jsonl"
    merged = merge([source], tmp_path / "out")
    assert load_rows(tmp_path / "out") == [
        dataclasses.replace(row, artifacts={}) for row in load_rows(source)
    ]
    assert set(merged.missing) == {name for row in load_rows(source) for name in row.artifacts.values()}


def test_settings_are_merged_as_they_were_recorded(tmp_path: Path) -> None:
    weights = "/data/" + 40 * "weights/" + "l.safetensors"
    row = dataclasses.replace(tried(1, XEON, 1), settings={"strategy": "raster", "checkpoint": weights})
    merge([folder(tmp_path / "a", [row], "a")], tmp_path / "out")
    (merged,) = load_rows(tmp_path / "out")
    assert merged.settings["checkpoint"] == weights


def test_a_missing_picture_costs_no_row_and_is_told(tmp_path: Path, machines: tuple[Path, Path]) -> None:
    (machines[0] / "artifacts" / f"{3:016x}.npz").unlink()
    merged = merge([machines[0]], tmp_path / "out")
    assert merged.missing == (f"artifacts/{3:016x}.npz",)
    assert str(merged).endswith("1 file missing")
    assert [row.artifacts for row in merged.rows if row.cell == f"{3:016x}"] == [{}]


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "artifacts/../../x", "rows.jsonl", "artifacts", "artifacts\\..\\x", "."],
)
def test_no_file_outside_the_artifacts_is_read_or_written(tmp_path: Path, name: str) -> None:
    row = dataclasses.replace(tried(1, XEON), artifacts={"trace": name})
    folder(tmp_path / "a", [])
    ResultStore(tmp_path / "a").append(row)
    with pytest.raises(UserError, match="names the file") as caught:
        merge([tmp_path / "a"], tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert ResultStore(tmp_path / "out").rows() == []


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, machines: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "copy_whole", full)
    with pytest.raises(UserError, match="out' can't be written: No space left on device"):
        merge(machines, tmp_path / "out")
    assert ResultStore(tmp_path / "out").rows() == []


def test_a_copy_that_does_not_read_back_alike_is_refused(
    tmp_path: Path, machines: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{1:016x}.npz"
    monkeypatch.setattr(merging, "file_sha256", lambda path: "0" * 64)
    with pytest.raises(OSError, match="doesn't read back alike"):
        merging.copy_whole(machines[0] / "artifacts" / name, tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("copies", [0, 2])
def test_a_merge_that_is_killed_leaves_the_rows_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    source = folder(tmp_path / "a", [tried(number, XEON) for number in (2, 3, 4, 5)], "a")
    out = folder(tmp_path / "out", [tried(1, XEON)])
    before, whole, done = contents(out)["rows.jsonl"], merging.copy_whole, []

    class Killed(BaseException):
        """As SIGKILL: nothing catches it."""

    def dying(origin: Path, target: Path) -> None:
        if len(done) == copies:
            (target.parent / f".merge-1-{target.name}").write_text("half a fi")
            raise Killed
        done.append(whole(origin, target))

    with monkeypatch.context() as patch:
        patch.setattr(merging, "copy_whole", dying)
        with pytest.raises(Killed):
            merge([source], out)
    assert contents(out)["rows.jsonl"] == before
    assert merge([source], out).copied == 4 - copies
    for row in load_rows(out)[1:]:
        assert (out / row.artifacts["trace"]).read_text() == f"a {row.cell}"
    assert not list(out.rglob(".merge-*"))
