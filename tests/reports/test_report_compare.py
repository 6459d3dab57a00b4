"""Comparisons give a number only where both sides measured the same thing."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from synthetic_rows import CELLS, anchor_rows, cell_row, failed_row, printed, sweep_rows

from harness.cli import main
from pardec.errors import UserError
from reports.comparability import Incomparable, quantity, require_comparable
from reports.compare import Comparison, Pair, compare, compare_within
from reports.contests import against_first
from reports.training_noise import TrainingNoise
from results.schema import Row, Turns
from results.store import ResultStore


def stored(folder: Path, rows: Sequence[Row]) -> Path:
    store = ResultStore(folder)
    for row in rows:
        store.append(row)
    return folder


def pair(tmp_path: Path, a: Row, b: Row) -> Pair:
    return compare(stored(tmp_path / "a", [a]), stored(tmp_path / "b", [b])).pairs[0]


def raster(**changes: Any) -> Row:
    return dataclasses.replace(cell_row(0, *CELLS[0]), **changes)


@pytest.fixture(scope="module")
def itself(sweep: Path) -> Comparison:
    return compare(sweep, sweep)


def test_a_result_equals_itself(itself: Comparison) -> None:
    comparison = itself
    assert len(comparison.pairs) == 12
    assert not comparison.only_a
    assert not comparison.only_b
    for one in comparison.pairs:
        assert not one.obstacles
        assert all(d.change == 0 and d.verdict == "no difference shown" for d in one.differences)


def test_differences_have_intervals_and_verdicts(tmp_path: Path) -> None:
    better = cell_row(1, *CELLS[0][:4], CELLS[0][4] / 2, CELLS[0][5] * 2)
    found = {one.name: one for one in pair(tmp_path, raster(), better).differences}
    distance = found["fd_fashion@1000"]
    assert distance.verdict == "better"
    assert distance.change == pytest.approx(-4.9)
    assert distance.low is not None
    assert distance.high is not None
    assert distance.low < distance.change < distance.high < 0
    assert distance.high - distance.change == pytest.approx(math.hypot(0.06 * 4.9, 0.06 * 9.8))
    assert found["throughput_images_per_s"].verdict == "better"
    assert found["throughput_images_per_s"].ratio.low < 2 < found["throughput_images_per_s"].ratio.high
    # Three repeats a side leave one chance in ten that either side is above the other throughout.
    assert found["latency_s"].verdict == "no difference shown"
    assert found["latency_s"].p == pytest.approx(0.1)
    assert "parameters" not in found


def test_what_was_measured_once_on_both_sides_gets_no_verdict(tmp_path: Path) -> None:
    once = {"throughput_interval": None, "throughput_samples": None}
    why = raster().unmeasured | dict.fromkeys(once, "one repeat")
    fast = {"throughput_images_per_s": 300.0}
    both = pair(tmp_path, raster(**once, unmeasured=why), raster(**once, **fast, unmeasured=why))
    found = {one.name: one for one in both.differences}
    assert found["throughput_images_per_s"].words == "no verdict without an interval"
    assert not any(
        one.words == "no verdict without an interval" for one in both.differences if one.low is not None
    )


def test_counted_quantities_differ_exactly(tmp_path: Path) -> None:
    (one,) = [
        d
        for d in pair(tmp_path, raster(), raster(parameters=1_262_721)).differences
        if d.name == "parameters"
    ]
    assert (one.change, one.verdict, one.a) == (1, "differs", "1,262,720")


@pytest.mark.parametrize(
    ("changes", "what", "keys"),
    [
        ({"images": 500}, "quality", ("n",)),
        (
            {"reference": {"name": "x", "sha256": "0" * 64, "n": 1}, "images": 9},
            "quality",
            ("reference", "n"),
        ),
        ({"protocol": None}, "quality", ("colour", "labels", "extractor")),
        ({"device": "cuda"}, "speed and memory", ("device", "hardware")),
        ({"threads": 8}, "speed and memory", ("threads",)),
    ],
)
def test_what_differs_is_named_instead_of_a_number(
    tmp_path: Path, changes: dict[str, Any], what: str, keys: tuple[str, ...]
) -> None:
    found = pair(tmp_path, raster(), raster(**changes))
    (obstacle,) = found.obstacles
    assert (obstacle.what, obstacle.keys) == (what, keys)
    names = {one.name for one in found.differences}
    assert ("latency_s" in names) is (what == "quality")
    assert any("@" in name for name in names) is (what != "quality")


def test_settings_are_joined_not_orders(tmp_path: Path) -> None:
    rows = [cell_row(i, *cell) for i, cell in enumerate(CELLS)]
    moved = [dataclasses.replace(row, cell=f"{99 - i:016x}") for i, row in enumerate(reversed(rows[1:]))]
    comparison = compare(stored(tmp_path / "a", rows), stored(tmp_path / "b", moved))
    assert [(p.a.label, p.a.steps, p.a.options) for p in comparison.pairs] == [
        (p.b.label, p.b.steps, p.b.options) for p in comparison.pairs
    ]
    assert [row.label for row in comparison.only_a] == ["Raster"]


def test_the_most_comparable_of_several_is_chosen(tmp_path: Path) -> None:
    other = raster(cell="f" * 16, images=500)
    comparison = compare(stored(tmp_path / "a", [raster()]), stored(tmp_path / "b", [other, raster()]))
    assert comparison.pairs[0].b == raster()
    assert comparison.only_b == (other,)


def test_failures_and_other_weights_are_noted(tmp_path: Path) -> None:
    ok = dataclasses.replace(cell_row(5, "arpg", "ARPG", 4, {}, 9.0, 9.0), network="zoo/raster")
    failed = dataclasses.replace(
        failed_row(), guidance=2.0, guidance_schedule="constant", temperature=1.0, cell="e" * 16
    )
    found = pair(tmp_path, ok, failed)
    assert found.notes[0].startswith("B: oom: CPU out of memory")
    assert not found.differences
    weights = pair(tmp_path / "more", raster(), raster(checkpoint="00" * 32))
    assert weights.notes == ("the weights differ (checkpoint)",)


def test_nothing_in_common_is_a_user_error(tmp_path: Path) -> None:
    a, b = stored(tmp_path / "a", [raster()]), stored(tmp_path / "b", [raster(steps=32)])
    with pytest.raises(
        UserError, match=r"share no setting: the first has Raster, 64 steps.*Raster, 32 steps"
    ):
        compare(a, b)
    with pytest.raises(UserError, match="no results at"):
        compare(a, tmp_path / "nowhere")


def test_a_narrow_terminal_gets_all_of_it(tmp_path: Path) -> None:
    a = stored(tmp_path / "a", [*anchor_rows(), raster()])
    b = stored(tmp_path / "b", [*anchor_rows(), raster(device="cuda")])
    comparison = compare(a, b)
    for text in (printed(comparison, 40), printed(comparison)):
        assert "not comparable: device" in text
        assert "device differs (cpu, cuda)" in text
        assert "fd_fashion@1000" in text


def test_strategies_of_one_result_are_compared_pairwise(sweep: Path) -> None:
    iso, against = compare_within(sweep)
    assert iso.title.startswith("Iso-quality: fd_fashion@1000 (device cpu")
    assert len(iso.lines) == 15  # six series
    assert any(line[1] == "undefined" and "no common quality" in line[-1] for line in iso.lines)
    assert len(against.lines) == 8
    with pytest.raises(UserError, match="no two cells"):
        compare_within(stored(sweep.parent / "single", [anchor_rows()[0]]))


def test_stored_values_without_each_group_pair_the_cells(itself: Comparison) -> None:
    comparison = itself
    quality = [one for pair in comparison.pairs for one in pair.differences if "@" in one.name]
    cells = [one for one in quality if one.paired]
    assert len(cells) == 5 * len(CELLS)  # anchors draw nothing in common
    assert all((one.low, one.high) == (0, 0) for one in cells)


def test_the_command_compares_one_folder_or_two(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "times faster at equal quality" in out
    assert "Against Raster" in out
    assert main(["compare", str(sweep), str(sweep)]) == 0
    out = capsys.readouterr().out
    assert "Iso-quality of B against A" in out
    assert "0 called better or worse" in out


def test_scores_of_two_extractors_are_not_compared():
    a = cell_row(50, *CELLS[0])
    b = dataclasses.replace(a, protocol=dict(a.protocol) | {"extractor": "x"})
    with pytest.raises(Incomparable) as c:
        require_comparable([a, b], quantity("is_fashion@1000").keys)
    assert c.value.keys == ("extractor",)


def test_cells_of_two_seeds_are_not_paired():
    one, other = sweep_rows()[2:4]
    found = [
        against_first([one, dataclasses.replace(other, seed=seed)], {}, TrainingNoise())
        .found[0][1]["fd_fashion@1000"]
        .paired
        for seed in (0, 1)
    ]
    assert found == [True, False]


def test_cells_timed_in_turn_are_compared_by_their_rounds():
    slow_day = [1.0, 1.1, 0.9, 1.6, 1.5, 1.7]
    one, other = sweep_rows()[2:4]
    pair = []
    for row, share in ((one, 1.0), (other, 0.5)):
        seconds = [share * second for second in slow_day]
        turns = Turns(reference=one.cell, batch=row.batch or 0, seconds=seconds, reference_seconds=slow_day)
        untold = {name: why for name, why in row.unmeasured.items() if name != "turns"}
        pair.append(dataclasses.replace(row, turns=turns, unmeasured=untold))

    def ratio(rows):
        return against_first(rows, {}, TrainingNoise()).found[0][1]["throughput_images_per_s"].ratio

    assert ratio(pair).value == pytest.approx(2.0)
    assert ratio(pair).low == pytest.approx(2.0)
    apart = dataclasses.replace(pair[1], turns=pair[1].turns | {"reference_seconds": [2.0] * 6})
    assert ratio([pair[0], apart]) == ratio([one, other])
