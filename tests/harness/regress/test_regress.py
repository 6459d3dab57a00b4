"""The gate's rules on made-up rows, its output, and its runs with a worker that only says what it is told."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.cli import main
from harness.regress import benchmarks, gate, judge, show
from pardec.errors import UserError
from results.schema import Paired, Row
from results.store import load_rows
from tests.reports.synthetic_rows import CELLS, ENVIRONMENT, cell_row

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "stand_in_worker.py"))


def times(ratio: float, n: int = 10, spread: float = 0.01, seed: int = 0) -> Paired:
    rng = np.random.default_rng(seed)
    reference = (1 + 0.2 * rng.random(n)).tolist()
    own = [base * ratio * (1 + spread * rng.standard_normal()) for base in reference]
    return Paired(reference="0" * 16, batch=64, seconds=own, reference_seconds=reference)


def row(index: int = 4, **changes: Any) -> Row:
    """LPD at 10 steps, complete."""
    extra = {
        "graphs": 0,
        "tokens_sha256": "ab" * 32,
        "paired": times(0.3),
        "quality_replicates": {
            name: (metric["value"] + 0.01 * np.arange(20)).tolist()
            for name, metric in (cell_row(index, *CELLS[index]).quality or {}).items()
        },
    }
    return dataclasses.replace(cell_row(index, *CELLS[index]), **extra | changes)


def verdicts(findings: list[judge.Finding], kind: str) -> dict[str, str]:
    return {one.quantity: one.verdict for one in findings if one.kind == kind}


def test_a_row_against_itself_passes_everything():
    findings = judge.judge([row()], [row()])
    assert {one.kind for one in findings} == {"exact", "tokens", "quality", "time"}
    assert {one.verdict for one in findings} == {"pass"}


# Exact ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", judge.EXACT)
def test_any_change_of_a_counted_quantity_fails(name):
    before = row()
    for step in (1, -1):
        changed = dataclasses.replace(before, **{name: getattr(before, name) + step})
        found = verdicts(judge.judge([before], [changed]), "exact")
        assert found.pop(name) == "fail"
        assert set(found.values()) == {"pass"}


def test_a_counter_that_was_counted_and_is_not_any_more_fails():
    before = row()
    lost = dataclasses.replace(before, graphs=None, unmeasured=before.unmeasured | {"graphs": "lost"})
    assert verdicts(judge.judge([before], [lost]), "exact")["graphs"] == "fail"
    assert verdicts(judge.judge([lost], [before]), "exact")["graphs"] == "notice"


def test_changed_tokens_fail_on_the_machine_of_the_baseline_only():
    before, after = row(), row(tokens_sha256="cd" * 32)
    assert judge.tokens(before, after).verdict == "fail"
    others = [
        {"environment": ENVIRONMENT | {"host_cpu": "another"}},
        {"environment": ENVIRONMENT | {"torch": "3.0"}},
        {"threads": 4},
        {"dtype": "bfloat16"},
        {"device": "cuda"},
        {"checkpoint": "00" * 32},
    ]
    for change in others:
        found = judge.tokens(before, dataclasses.replace(after, **change))
        assert found.verdict == "notice"
        assert found.text.startswith("not compared: ")


# Cells ----------------------------------------------------------------------------------------------------


def test_cells_that_are_missing_or_failed_fail_and_new_ones_are_noticed():
    lpd, arpg = row(4), row(7)
    broken = dataclasses.replace(arpg, status="oom", reason="out of memory")
    assert verdicts(judge.judge([lpd, arpg], [lpd]), "cell") == {"status": "fail"}
    assert verdicts(judge.judge([lpd, arpg], [lpd, broken]), "cell") == {"status": "fail"}
    assert verdicts(judge.judge([lpd], [lpd, arpg]), "cell") == {"status": "notice"}
    assert verdicts(judge.judge([lpd, broken], [lpd, arpg]), "cell") == {"status": "notice"}


def test_a_cell_whose_steps_changed_is_the_same_cell_beside_others_of_its_strategy():
    first, second = row(3), row(4)  # LPD in 20 and in 10 steps
    changed = dataclasses.replace(second, steps=11)
    assert judge.partners([first, second], [changed, first]) == {first.cell: first, second.cell: changed}
    assert verdicts(judge.judge([first, second], [changed, first]), "exact")["steps"] == "fail"


# Quality --------------------------------------------------------------------------------------------------


def shifted(before: Row, name: str, by: float, noise: float = 0.0) -> Row:
    assert before.quality is not None
    assert before.quality_replicates is not None
    metric = before.quality[name]
    moved = metric | {key: metric[key] + by for key in ("value", "low", "high")}
    wobble = noise * np.random.default_rng(0).standard_normal(20)
    replicates = (np.array(before.quality_replicates[name]) + by + wobble).tolist()
    return dataclasses.replace(
        before,
        quality=before.quality | {name: moved},
        quality_replicates=before.quality_replicates | {name: replicates},
    )


@pytest.mark.parametrize(
    ("name", "by", "noise", "verdict"),
    [
        ("fd_mnist@1000", +1.0, 0.001, "fail"),  # of 13.1: past the margin of 5 %
        ("fd_mnist@1000", +0.3, 0.001, "warn"),  # surely worse, within the margin
        ("fd_mnist@1000", +1.0, 1.0, "pass"),  # not surely worse
        ("fd_mnist@1000", -5.0, 0.001, "pass"),  # better
        ("accuracy@1000", -0.02, 0.0001, "fail"),
        ("accuracy@1000", -0.005, 0.0001, "warn"),
        ("accuracy@1000", +0.02, 0.0001, "pass"),
        ("kid_mnist@1000", +0.002, 0.00001, "fail"),
    ],
)
def test_quality_fails_where_it_is_surely_worse_by_more_than_the_margin(name, by, noise, verdict):
    before = row()
    found = verdicts(judge.judge([before], [shifted(before, name, by, noise)]), "quality")
    assert found.pop(name) == verdict
    assert set(found.values()) == {"pass"}


def test_the_interval_is_of_the_paired_difference_where_both_have_replicates():
    before = row()
    after = shifted(before, "fd_mnist@1000", 1.0)
    assert judge.difference("fd_mnist@1000", before, after, 0.99) == pytest.approx((1.0, 1.0))
    low, high = judge.difference(
        "fd_mnist@1000", before, dataclasses.replace(after, quality_replicates=None), 0.99
    )
    assert low < 0 < high  # each is known to 6 % alone


@pytest.mark.parametrize("gone", ["null", "absent"])
def test_a_metric_that_is_no_longer_measured_is_told(gone):
    before, name = row(), "fd_mnist@1000"
    kept = {key: metric for key, metric in before.quality.items() if key != name}
    lost = {**before.quality[name], "value": None, "low": None, "high": None}
    changes = {"quality": kept, "unmeasured": before.unmeasured}
    if gone == "null":
        changes = {"quality": kept | {name: lost}}
        changes["unmeasured"] = before.unmeasured | {f"quality.{name}": "too few images"}
    findings = judge.judge([before], [dataclasses.replace(before, **changes)])
    (told,) = [one for one in findings if one.quantity == name]
    assert told.verdict == "notice"
    assert told.text == f"no longer measured: {'too few images' if gone == 'null' else 'absent'}"


def test_quality_against_another_reference_is_not_compared():
    other = row(reference={"name": "other", "sha256": "00" * 32, "n": 9})
    assert set(verdicts(judge.judge([row()], [other]), "quality").values()) == {"notice"}


# Time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "again", "verdict"),
    [
        (0.3, None, "pass"),
        (0.25, None, "pass"),
        (0.32, None, "pass"),
        (0.34, None, "warn"),
        (0.39, 0.39, "fail"),
        (0.39, 0.30, "warn"),
        (0.39, None, "warn"),
    ],
)
def test_time_warns_above_ten_percent_and_fails_above_25_in_two_rounds(ratio, again, verdict):
    second = None if again is None else times(again, seed=2)
    assert judge.timing(row(), row(paired=times(ratio, seed=1)), second).verdict == verdict


def test_a_slow_median_of_a_wild_list_is_no_failure():
    wild = Paired(reference="0" * 16, batch=64, seconds=[0.1] * 4 + [9.0] * 6, reference_seconds=[1.0] * 10)
    found = judge.timing(row(), row(paired=wild), wild)
    assert found.verdict == "warn"
    assert judge.suspects([row()], [row(paired=wild)]) == []


def test_a_machine_twice_as_slow_does_not_count():
    slow = times(0.3)
    doubled = slow | {name: [2 * x for x in slow[name]] for name in ("seconds", "reference_seconds")}
    assert judge.timing(row(), row(paired=doubled)).verdict == "pass"


def test_the_reference_is_held_against_the_workloads_and_warns_at_most():
    def reference(seconds: float, workload: float) -> Row:
        paired = Paired(reference="0" * 16, batch=64, seconds=[seconds] * 8, reference_seconds=[seconds] * 8)
        return row(0, paired=paired, calibration_s={"matmul": workload, "python": workload})

    before = reference(1.0, 0.01)
    assert judge.timing(before, reference(2.0, 0.02)).verdict == "pass"
    slow = judge.timing(before, reference(1.3, 0.01), None)
    assert (slow.verdict, slow.quantity) == ("warn", "time / workloads")
    assert judge.suspects([before], [reference(1.3, 0.01)]) == []


def test_time_that_was_not_measured_is_a_notice():
    lost = dataclasses.replace(row(paired=None), unmeasured=row().unmeasured | {"paired": "it hung"})
    found = judge.timing(row(), lost)
    assert (found.verdict, found.text) == ("notice", "it hung")


# Output ---------------------------------------------------------------------------------------------------


def test_findings_are_shown_worst_first_with_the_number_of_comparisons(capsys):
    findings = judge.judge([row()], [row(steps=11, forwards=11, label="a|b")])
    shown = show.notable(findings)
    assert [one.verdict for one in shown[:2]] == ["fail", "fail"]
    assert show.summary(findings).startswith(f"FAIL: {len(findings)} comparisons, ")
    assert "a\\|b" in show.to_markdown(findings)
    assert json.loads(show.to_json(findings))["verdict"] == "fail"
    assert len(json.loads(show.to_json(findings))["findings"]) == len(findings)
    show.print_findings(findings)
    assert "record a new baseline" in capsys.readouterr().out


# Benchmarks -----------------------------------------------------------------------------------------------


def test_benchmarks_join_and_warn_at_most(tmp_path):
    file = tmp_path / "b.json"
    stats = {"benchmarks": [{"fullname": "t.py::a", "stats": {"data": [2.0, 3.0, 2.5]}}]}
    file.write_text(json.dumps(stats))
    now = benchmarks.read_benchmark_json(file)
    assert now == {"t.py::a": [2.0, 3.0, 2.5]}
    old = {"t.py::a": [1.0, 1.0], "t.py::gone": [1.0]}
    assert [one.verdict for one in judge.benchmarks(old, now)] == ["warn", "notice"]
    assert [one.verdict for one in judge.benchmarks(now, now)] == ["pass"]
    assert [one.verdict for one in judge.benchmarks({}, now)] == ["notice"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"benchmarks": [{"fullname": "a", "stats": {"data": []}}]}']
)
def test_files_that_are_no_benchmarks_are_named(tmp_path, capsys, text):
    file = tmp_path / "b.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"b\.json"):
        benchmarks.read_benchmark_json(file)
    assert main(["regress", "--benchmark-json", str(file)]) == 2
    assert "b.json" in capsys.readouterr().err


# Runs -----------------------------------------------------------------------------------------------------


def sweep(*labels: str) -> Sweep:
    cells = tuple(Cell("lpd", label=label, seed=seed, threads=1) for seed, label in enumerate(labels))
    return Sweep("tiny", "tiny", cells, in_turn="all", rounds=10)


def test_without_a_baseline_the_gate_passes_with_a_notice(tmp_path):
    summary, findings = gate.compare(sweep("ok"), tmp_path / "run", tmp_path / "none.jsonl", STAND_IN)
    assert summary.exit_code == 0
    assert judge.worst(findings) == "notice"
    assert "pardec baseline" in findings[0].text


def test_a_recorded_baseline_passes_against_the_same_code(tmp_path):
    path = tmp_path / "b" / "tiny.jsonl"
    assert gate.record(sweep("ok", "ok"), tmp_path / "first", path, STAND_IN).exit_code == 0
    assert [one.artifacts for one in load_rows(path)] == [{}, {}]
    summary, findings = gate.compare(sweep("ok", "ok"), tmp_path / "second", path, STAND_IN)
    assert summary.exit_code == 0
    assert judge.worst(findings) != "fail"
    assert verdicts(findings, "exact")["parameters"] == "pass"


def test_a_cell_that_fails_records_no_baseline(tmp_path):
    path = tmp_path / "tiny.jsonl"
    assert gate.record(sweep("ok", "crash"), tmp_path / "run", path, STAND_IN).exit_code == 1
    assert not path.exists()


def test_only_what_looks_slow_is_timed_again(tmp_path):
    (tmp_path / "artifacts").mkdir()
    chosen = sweep("ok", "ok", "ok")
    keys = [cell.key for cell in chosen.cells]
    slow = dataclasses.replace(row(paired=times(0.5) | {"reference": keys[0]}), cell=keys[2])
    again = gate.time_again(chosen, [slow], tmp_path, STAND_IN)
    assert set(again) == {keys[0], keys[2]}
    assert gate.time_again(chosen, [], tmp_path, STAND_IN) == {}


def test_rows_of_an_earlier_run_never_pass_for_todays(tmp_path):
    with gate.fresh_folder(tmp_path) as folder:
        (folder / "rows.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="holds rows already"), gate.fresh_folder(tmp_path):
        pass
    with gate.fresh_folder(None) as temporary:
        assert temporary.is_dir()
    assert not temporary.exists()
