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
from harness.quality.intervals import group_count
from harness.regress import benchmarks, gate, judge, quality, selftest, show
from harness.regress.findings import Finding, worst
from harness.sweep.row import Summary
from pardec.errors import UserError
from reports.measured import COUNTS
from results.schema import Row, Turns, row_to_json
from results.store import load_rows
from tests.reports.synthetic_rows import CELLS, ENVIRONMENT, cell_row

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "stand_in_worker.py"))


def times(ratio: float, n: int = 10, spread: float = 0.01, seed: int = 0) -> Turns:
    rng = np.random.default_rng(seed)
    reference = (1 + 0.2 * rng.random(n)).tolist()
    own = [base * ratio * (1 + spread * rng.standard_normal()) for base in reference]
    return Turns(reference="0" * 16, batch=64, seconds=own, reference_seconds=reference)


def row(index: int = 4, **changes: Any) -> Row:
    """LPD at 10 steps, complete."""
    extra = {
        "graphs": 0,
        "steps_least": 9,
        "steps_most": 12,
        "draft_tokens": 90,
        "drafts_tested": 80,
        "accepted_share": 0.75,
        "wasted_flops": 100.0,
        "calibration_s": {"matmul": 0.01, "python": 0.02},
        "tokens_sha256": "ab" * 32,
        "turns": times(0.3),
        "quality_replicates": {
            name: (metric["value"] + 0.01 * np.arange(20)).tolist()
            for name, metric in (cell_row(index, *CELLS[index]).quality or {}).items()
        },
    }
    return dataclasses.replace(cell_row(index, *CELLS[index]), **extra | changes)


def verdicts(findings: list[Finding], kind: str) -> dict[str, str]:
    return {one.quantity: one.verdict for one in findings if one.kind == kind}


def test_a_row_against_itself_passes_everything():
    findings = judge.judge([row()], [row()])
    assert {one.kind for one in findings} == {"exact", "tokens", "quality", "time"}
    assert {one.verdict for one in findings} == {"pass"}


# Exact ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_any_change_of_a_counted_quantity_fails(name):
    before = row()
    for step in (1, -1):
        changed = dataclasses.replace(before, **{name: getattr(before, name) + step})
        found = verdicts(judge.judge([before], [changed]), "exact")
        assert found.pop(name) == "fail"
        assert set(found.values()) == {"pass"}


def test_every_network_of_a_decode_is_counted_exactly():
    drafter = {"role": "drafter", "parameters": 3, "sha256": None, "weight_bytes": 12, "cache_bytes": 8}
    drafter |= {"forwards": 5, "tokens_processed": 9}
    before = row(networks=[drafter])
    found = verdicts(judge.exact(before, row(networks=[drafter | {"forwards": 6}])), "exact")
    assert {name for name, verdict in found.items() if verdict == "fail"} == {"drafter forwards"}
    gone = verdicts(judge.exact(before, row()), "exact")
    assert [name for name, verdict in gone.items() if verdict == "fail"] == [
        f"drafter {name}"
        for name in ("parameters", "weight_bytes", "cache_bytes", "forwards", "tokens_processed")
    ]


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
        {"device": "cuda", "dtype": "bfloat16"},
        {"checkpoint": "00" * 32},
    ]
    for change in others:
        found = judge.tokens(before, dataclasses.replace(after, **change))
        assert found.verdict == "notice"
        assert found.text.startswith("not compared: ")
    assert judge.tokens(dataclasses.replace(before, device="cuda"), after).verdict == "notice"


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
        ("fd_fashion@1000", +1.0, 0.001, "fail"),  # of 13.1: past the margin of 5 %
        ("fd_fashion@1000", +0.3, 0.001, "warn"),  # surely worse, within the margin
        ("fd_fashion@1000", +1.0, 1.0, "pass"),  # not surely worse
        ("fd_fashion@1000", -5.0, 0.001, "pass"),  # better
        ("accuracy@1000", -0.02, 0.0001, "fail"),
        ("accuracy@1000", -0.005, 0.0001, "warn"),
        ("accuracy@1000", +0.02, 0.0001, "pass"),
        ("kid_fashion@1000", +0.002, 0.00001, "fail"),
    ],
)
def test_quality_fails_where_it_is_surely_worse_by_more_than_the_margin(name, by, noise, verdict):
    before = row()
    found = verdicts(judge.judge([before], [shifted(before, name, by, noise)]), "quality")
    assert found.pop(name) == verdict
    assert set(found.values()) == {"pass"}


def test_the_interval_is_of_the_paired_difference_where_both_have_replicates():
    before = row()
    after = shifted(before, "fd_fashion@1000", 1.0)
    assert quality.difference("fd_fashion@1000", before, after, 0.99) == pytest.approx((1.0, 1.0))
    low, high = quality.difference(
        "fd_fashion@1000", before, dataclasses.replace(after, quality_replicates=None), 0.99
    )
    assert low < 0 < high  # each is known to 6 % alone


@pytest.mark.parametrize("gone", ["null", "absent", "all"])
def test_a_metric_that_is_no_longer_measured_fails(gone):
    before, name = row(), "fd_fashion@1000"
    kept = {key: metric for key, metric in before.quality.items() if key != name}
    lost = {**before.quality[name], "value": None, "low": None, "high": None}
    why = "too few images"
    changes = {
        "null": {"quality": kept | {name: lost}, "unmeasured": {f"quality.{name}": why}},
        "absent": {"quality": kept},
        "all": {"quality": None, "unmeasured": {"quality": why}},
    }[gone]
    changes["unmeasured"] = before.unmeasured | changes.get("unmeasured", {})
    findings = judge.judge([before], [dataclasses.replace(before, **changes)])
    (told,) = [one for one in findings if one.quantity == name]
    assert told.verdict == "fail"
    assert told.text == f"measured in the baseline and not any more: {'absent' if gone == 'absent' else why}"
    failed = [one.quantity for one in findings if one.verdict == "fail"]
    assert failed == (list(before.quality) if gone == "all" else [name])


@pytest.mark.parametrize("part", ["interval", "replicates"])
def test_a_metric_without_the_certainty_of_the_baseline_fails(part):
    before, name = row(), "fd_fashion@1000"
    worse = shifted(before, name, 50.0)
    lost = {"quality_replicates": {k: v for k, v in worse.quality_replicates.items() if k != name}}
    if part == "interval":
        bare = {**worse.quality[name], "low": None, "high": None}
        reasons = {f"quality.{name}.{end}": "one image" for end in ("low", "high")} | {
            f"quality.{name}": "few"
        }
        lost = {"quality": worse.quality | {name: bare}, "unmeasured": worse.unmeasured | reasons}
    (told,) = [
        one for one in judge.judge([before], [dataclasses.replace(worse, **lost)]) if one.quantity == name
    ]
    assert told.verdict == "fail"
    assert f"its {part}: measured in the baseline and not any more" in told.text


def test_a_worse_metric_without_interval_on_either_side_warns():
    before, name = row(quality_replicates=None), "fd_fashion@1000"
    bare = {**before.quality[name], "low": None, "high": None}
    unmeasured = before.unmeasured | {f"quality.{name}": "few"}
    before = dataclasses.replace(before, quality={name: bare}, unmeasured=unmeasured)
    worse = dataclasses.replace(before, quality={name: bare | {"value": bare["value"] + 50}})
    assert verdicts(judge.judge([before], [worse]), "quality") == {name: "warn"}
    assert verdicts(judge.judge([before], [before]), "quality") == {name: "pass"}


def test_a_metric_without_a_stated_margin_warns_at_most():
    before = row()
    known = before.quality["fd_fashion@1000"]
    before = dataclasses.replace(before, quality={"depth@1000": known}, quality_replicates={})
    worse = {**known, "value": 9e4, "low": 8.9e4, "high": 9.1e4}
    found = judge.judge([before], [dataclasses.replace(before, quality={"depth@1000": worse})])
    assert verdicts(found, "quality") == {"depth@1000": "pass"}  # it is a score: higher is better
    worse = {**known, "value": 0.1, "low": 0.0, "high": 0.2}
    found = judge.judge([before], [dataclasses.replace(before, quality={"depth@1000": worse})])
    assert verdicts(found, "quality") == {"depth@1000": "warn"}


def test_quality_against_another_reference_fails_and_a_mere_other_name_does_not_hide_it():
    before = row()
    other = row(reference={"name": "other", "sha256": "00" * 32, "n": 9})
    found = [one for one in judge.judge([before], [other]) if one.kind == "quality"]
    assert {one.verdict for one in found} == {"fail", "pass"}
    against = {one.quantity: one for one in found}
    assert against["accuracy@1000"].verdict == "pass"  # it needs no reference
    assert "reference differs" in against["fd_fashion@1000"].text
    assert "record a new baseline if the change is meant" in against["fd_fashion@1000"].text
    worse = shifted(before, "fd_fashion@1000", 50.0)
    renamed = dataclasses.replace(worse, reference={**worse.reference, "name": "mnist, renamed"})
    (told,) = [one for one in judge.judge([before], [renamed]) if one.quantity == "fd_fashion@1000"]
    assert (told.verdict, told.text.partition(",")[0]) == ("fail", "difference +50")


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
    assert judge.timing(row(), row(turns=times(ratio, seed=1)), second).verdict == verdict


def test_a_slow_median_of_a_wild_list_is_no_failure():
    wild = Turns(reference="0" * 16, batch=64, seconds=[0.1] * 4 + [9.0] * 6, reference_seconds=[1.0] * 10)
    found = judge.timing(row(), row(turns=wild), wild)
    assert found.verdict == "warn"
    assert judge.suspects([row()], [row(turns=wild)]) == []


def test_a_machine_twice_as_slow_does_not_count():
    slow = times(0.3)
    doubled = slow | {name: [2 * x for x in slow[name]] for name in ("seconds", "reference_seconds")}
    assert judge.timing(row(), row(turns=doubled)).verdict == "pass"


@pytest.mark.parametrize(
    "change",
    [
        {"environment": ENVIRONMENT | {"host_cpu": "another"}},
        {"environment": ENVIRONMENT | {"torch": "3.0"}},
        {"threads": 4},
    ],
)
def test_a_ratio_of_another_machine_warns_at_most(change):
    slow = row(turns=times(0.5, seed=1), **change)
    found = judge.timing(row(), slow, times(0.5, seed=2))
    assert found.verdict == "warn"
    assert "not held against it: " in found.text
    assert found.text.endswith("differs")
    assert judge.suspects([row()], [slow]) == []
    assert judge.timing(row(), row(turns=slow.turns), times(0.5, seed=2)).verdict == "fail"


def test_other_groups_of_images_are_told_and_never_pass():
    before = row()
    fewer = {name: values[:12] for name, values in (before.quality_replicates or {}).items()}
    found = quality.quality(before, row(quality_replicates=fewer), 5)
    assert {one.verdict for one in found} == {"warn"}
    assert all("not paired: 20 and 12 groups of images" in one.text for one in found)


def test_the_recorded_gate_is_paired_with_what_is_measured_now():
    rows = load_rows(Path(__file__).parents[3] / "results/baselines/gate.jsonl")
    for one in rows:
        groups = group_count(np.arange(one.images) % 10)
        assert {len(values) for values in (one.quality_replicates or {}).values()} == {groups}


def test_the_level_is_shared_among_metrics_that_were_measured():
    whole = row()
    metrics = dict(whole.quality or {})
    name = next(iter(metrics))
    nothing = metrics[name] | {"value": None, "low": None, "high": None}
    why = whole.unmeasured | {f"quality.{name}": "too few images"}
    null = row(quality=metrics | {name: nothing}, unmeasured=why)
    assert quality.compared(whole, whole) == len(metrics)
    assert quality.compared(null, whole) == quality.compared(whole, null) == len(metrics) - 1


def test_the_self_test_compares_as_many_metrics_as_the_gate():
    rows = load_rows(Path(__file__).parents[3] / "results/baselines/gate.jsonl")
    assert sum(quality.compared(one, one) for one in rows) == selftest.QUALITY_COMPARISONS


def test_the_reference_is_held_against_the_workloads_and_warns_at_most():
    def reference(seconds: float, workload: float) -> Row:
        turns = Turns(reference="0" * 16, batch=64, seconds=[seconds] * 8, reference_seconds=[seconds] * 8)
        return row(0, turns=turns, calibration_s={"matmul": workload, "python": workload})

    before = reference(1.0, 0.01)
    assert judge.timing(before, reference(2.0, 0.02)).verdict == "pass"
    slow = judge.timing(before, reference(1.3, 0.01), None)
    assert (slow.verdict, slow.quantity) == ("warn", "time / workloads")
    assert judge.suspects([before], [reference(1.3, 0.01)]) == []


def test_time_that_the_baseline_has_and_the_row_has_not_fails():
    lost = dataclasses.replace(row(turns=None), unmeasured=row().unmeasured | {"turns": "it hung"})
    found = judge.timing(row(), lost)
    assert (found.verdict, found.text) == ("fail", "measured in the baseline and not any more: it hung")
    found = judge.timing(lost, row())
    assert (found.verdict, found.text) == ("notice", "baseline: it hung")


def test_a_second_round_that_failed_confirms_nothing_away():
    slow = row(turns=times(0.39, seed=1))
    assert verdicts(judge.judge([row()], [slow], {}), "time") == {"time / reference": "fail"}
    assert verdicts(judge.judge([row()], [slow]), "time") == {"time / reference": "warn"}
    assert verdicts(judge.judge([row()], [row()], {}), "time") == {"time / reference": "pass"}


def test_times_beside_another_reference_are_not_compared():
    own = row(turns=Turns(reference="0" * 16, batch=64, seconds=[1.0] * 8, reference_seconds=[1.0] * 8))
    assert judge.timing(row(), own).verdict == "fail"
    assert judge.timing(own, row()).verdict == "fail"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("throughput_images_per_s", None, "throughput_images_per_s"),
        ("latency_s", None, "latency_s"),
        ("peak_bytes", None, "peak_bytes"),
        ("phases_s", {"plan": 0.1, "prefill": 0.1, "detokenize": None, "total": 1.0}, "phases_s.decode"),
        ("calibration_s", None, "calibration_s.matmul"),
        ("lossiness_bits", None, "lossiness_bits"),
    ],
)
def test_any_number_that_the_baseline_has_and_the_row_has_not_fails(name, value, told):
    before = row()
    why = {name: "it broke", "phases_s.detokenize": "no tokenizer"}
    lost = dataclasses.replace(before, **{name: value}, unmeasured=before.unmeasured | why)
    found = {one.quantity: one for one in judge.absent(before, lost)}
    assert found[told].verdict == "fail"
    assert found[told].text == "measured in the baseline and not any more: it broke"
    assert found[told].baseline.endswith((" s", " images/s", " bytes", " bits"))
    assert judge.absent(before, before) == judge.absent(lost, before) == []
    assert worst(judge.judge([before], [lost])) == "fail"


def test_what_only_some_devices_count_is_missed_on_the_baseline_s_device():
    before, lost = row(energy_per_image_j=2.0), row()
    assert [one.verdict for one in judge.absent(before, lost)] == ["fail"]
    elsewhere = row(environment=ENVIRONMENT | {"host_cpu": "another"})
    assert [one.verdict for one in judge.absent(before, elsewhere)] == ["notice"]


def test_tokens_without_a_hash_fail_on_any_machine():
    lost = row(tokens_sha256=None, environment=ENVIRONMENT | {"host_cpu": "another"})
    assert judge.tokens(row(), lost).verdict == "fail"
    assert judge.tokens(lost, row()).verdict == "notice"


def test_steps_of_a_declared_acceptance_are_not_compared():
    before, after = row(acceptance=0.7, steps_bound=64), row(acceptance=0.7, steps_bound=64, steps=11)
    (told,) = [one for one in judge.exact(before, after) if one.quantity == "steps"]
    assert (told.verdict, told.text) == ("notice", "not compared: it follows from a declared acceptance")
    assert "declared acceptance 0.7" in told.setting
    fatter = dataclasses.replace(before, parameters=before.parameters + 1)
    assert verdicts(judge.exact(before, fatter), "exact")["parameters"] == "fail"


def test_steps_that_depend_on_the_tokens_are_exact_where_the_tokens_are():
    before, after = row(steps_bound=64), row(steps_bound=64, steps=11)
    assert verdicts(judge.exact(before, after), "exact")["steps"] == "fail"
    elsewhere = dataclasses.replace(after, environment=ENVIRONMENT | {"host_cpu": "another"})
    assert verdicts(judge.exact(before, elsewhere), "exact")["steps"] == "notice"


def test_another_guidance_interval_or_power_is_another_cell():
    def cosine(**settings):
        known = {"guidance_interval": -1} | settings
        schedule = {"guidance_schedule": "power-cosine", "guidance_power": known.pop("guidance_power", 2.0)}
        return row(settings=known, **schedule)

    assert set(judge.partners([cosine()], [cosine()])) == {row().cell}
    assert judge.partners([cosine()], [cosine(guidance_interval=3)]) == {}
    assert judge.partners([cosine()], [cosine(guidance_power=3.0)]) == {}


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


def test_slow_benchmarks_warn_and_missing_ones_fail(tmp_path):
    file = tmp_path / "b.json"
    stats = {"benchmarks": [{"fullname": "t.py::a", "stats": {"data": [2.0, 3.0, 2.5]}}]}
    file.write_text(json.dumps(stats))
    now = benchmarks.read_benchmark_json(file)
    assert now == {"t.py::a": [2.0, 3.0, 2.5]}
    old = {"t.py::a": [1.0, 1.0], "t.py::gone": [1.0]}
    assert [one.verdict for one in judge.benchmarks(old, now)] == ["warn", "fail"]
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
    assert worst(findings) == "notice"
    assert "pardec baseline" in findings[0].text


def test_a_named_baseline_that_is_not_there_is_a_mistake(tmp_path, capsys):
    assert main(["regress", "--baseline", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_a_recorded_baseline_passes_against_the_same_code(tmp_path):
    path = tmp_path / "b" / "tiny.jsonl"
    assert gate.record(sweep("ok", "ok"), tmp_path / "first", path, STAND_IN).exit_code == 0
    assert [one.artifacts for one in load_rows(path)] == [{}, {}]
    summary, findings = gate.compare(sweep("ok", "ok"), tmp_path / "second", path, STAND_IN)
    assert summary.exit_code == 0
    assert worst(findings) != "fail"
    assert verdicts(findings, "exact")["parameters"] == "pass"
    other = [dataclasses.replace(one, parameters=8) for one in load_rows(path)]
    path.write_text("".join(row_to_json(one) + "\n" for one in other))
    _, findings = gate.compare(sweep("ok", "ok"), tmp_path / "third", path, STAND_IN)
    assert verdicts(findings, "exact")["parameters"] == "fail"


def test_what_looks_slow_in_a_comparison_is_judged_by_its_second_round(tmp_path, monkeypatch):
    path, before, slow = tmp_path / "b.jsonl", row(), row(turns=times(0.39, seed=1))
    path.write_text(row_to_json(before) + "\n")
    monkeypatch.setattr(gate, "run_sweep", lambda *_: Summary(rows=[slow]))
    for again, verdict in ((0.39, "fail"), (0.30, "warn")):
        told = {slow.cell: times(again, seed=2)}
        monkeypatch.setattr(
            gate, "time_again", lambda sweep, rows, *_, told=told: told if rows == [slow] else {}
        )
        _, findings = gate.compare(sweep("ok"), tmp_path, path)
        assert verdicts(findings, "time") == {"time / reference": verdict}


@pytest.mark.parametrize(("changes", "status"), [({}, 0), ({"parameters": 1}, 1)])
def test_the_command_tells_by_its_status_and_files(tmp_path, monkeypatch, capsys, changes, status):
    findings = judge.judge([row()], [row(**changes)])
    monkeypatch.setattr(gate, "asked", lambda *_: (sweep("ok"), tmp_path / "none.jsonl", None))
    monkeypatch.setattr(gate, "compare", lambda *_: (Summary(rows=[row()]), findings))
    files = [tmp_path / "found.json", tmp_path / "found.md"]
    assert main(["regress", "--json", str(files[0]), "--markdown", str(files[1])]) == status
    assert json.loads(files[0].read_text())["verdict"] == worst(findings)
    assert show.summary(findings) in files[1].read_text()
    assert show.summary(findings) in capsys.readouterr().out


def test_a_cell_that_fails_records_no_baseline(tmp_path):
    path = tmp_path / "tiny.jsonl"
    assert gate.record(sweep("ok", "crash"), tmp_path / "run", path, STAND_IN).exit_code == 1
    assert not path.exists()


def test_only_what_looks_slow_is_timed_again(tmp_path):
    (tmp_path / "artifacts").mkdir()
    chosen = sweep("ok", "ok", "ok")
    keys = [cell.key for cell in chosen.cells]
    slow = dataclasses.replace(row(turns=times(0.5) | {"reference": keys[0]}), cell=keys[2])
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
