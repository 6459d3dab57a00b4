"""Training noise: from networks that differ in the training seed alone, beside every difference."""

import dataclasses
from typing import Any

import pytest
from synthetic_rows import CELLS, base_row, cell_row
from test_report_compare import pair

from reports import training_noise
from reports.contests import contests
from reports.frame import facets
from reports.training_noise import TrainingNoise, seed_pairs
from results.schema import Row

METRIC = "fd_fashion@1000"
RECORDED = training_noise.recorded
"""The function itself: the tests below run without what comes with pardec."""


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_noise, "recorded", tuple)


def trained(index: int, cell: int, seed: int | None, distance: float, **changes: Any) -> Row:
    strategy, label, steps, options, _, speed = CELLS[cell]
    row = cell_row(index, strategy, label, steps, options, distance, speed)
    network = {"training_seed": seed, "checkpoint": f"{index:02x}" * 32, "network": f"zoo/{strategy}-{seed}"}
    return dataclasses.replace(row, **network | changes)


def test_only_rows_that_differ_in_the_training_seed_alone_are_paired() -> None:
    rows = [trained(0, 0, 0, 9.0), trained(1, 0, 1, 9.5)]
    assert len(seed_pairs(rows)) == 1
    for changes in (
        {"steps": 63},
        {"guidance": 9.0},
        {"options": {"order": "x"}},
        {"seed": 1},
        {"status": "oom", "reason": "x"},
        {"training_seed": None},
        {"training_seed": 0},
        {"training_images": 50_000},
        {"dtype": "bfloat16"},
    ):
        assert not seed_pairs([rows[0], dataclasses.replace(rows[1], **changes)]), changes


def test_the_largest_move_stands_for_the_size() -> None:
    rows = [trained(0, 0, 0, 9.0), trained(1, 0, 1, 9.5), trained(2, 4, 0, 13.0), trained(3, 4, 1, 11.0)]
    noise = TrainingNoise.known(rows)
    assert noise.moved(METRIC, rows) == {
        "raster, 64 steps": pytest.approx(0.5),
        "lpd, 10 steps": pytest.approx(2.0),
    }
    assert noise.size(METRIC, rows) == pytest.approx(2.0)
    assert noise.size("throughput_images_per_s", rows) is None
    assert noise.size("fd_inception@50000", rows) is None


@pytest.mark.parametrize("key", ["images", "tokenizer", "reference"])
def test_a_size_never_stands_beside_numbers_of_another_kind(key: str) -> None:
    noise = TrainingNoise.known([trained(0, 0, 0, 9.0), trained(1, 0, 1, 9.5)])
    other = {
        "images": {"images": 500},
        "tokenizer": {"tokenizer": "vq-llamagen"},
        "reference": {"reference": {"name": "x", "sha256": "0" * 64, "n": 1}},
    }[key]
    assert noise.size(METRIC, [base_row(7)]) == pytest.approx(0.5)
    assert noise.size(METRIC, [base_row(7, **other)]) is None


def test_every_difference_of_a_report_shows_it() -> None:
    rows = [trained(0, 0, 0, 9.0), trained(1, 0, 1, 9.5), trained(2, 2, 0, 9.2), trained(3, 3, 0, 15.0)]
    slower = {"throughput_images_per_s": 150.0, "throughput_interval": [148.0, 152.0]}
    better = {"quality": rows[2].quality}
    rows.append(dataclasses.replace(rows[3], steps=30, cell="f" * 16, **slower, **better))
    (facet,) = facets(rows)
    iso, against = contests(facet, {}, TrainingNoise.known(rows))
    at = against.headings.index("training seeds")
    assert against.headings[at - 1] == f"{METRIC}, difference"
    shown = {line[0]: line[at] for line in against.lines}
    assert set(shown.values()) == {"± 0.5"}
    verdicts = {line[0]: line[at + 1] for line in against.lines}
    assert "within training noise" in verdicts["PAR, 19 steps"], verdicts
    assert "within training noise" not in verdicts["LPD, 20 steps"]
    assert "0.5 (raster, 64 steps)" in against.note
    sizes = [line[iso.headings.index("training seeds")] for line in iso.lines]
    assert "± 0.5" in sizes
    assert "0.5 (raster, 64 steps)" in iso.note


def test_without_two_seeds_it_says_that_nothing_is_known() -> None:
    rows = [trained(0, 0, 0, 9.0), trained(2, 2, 0, 9.2)]
    (facet,) = facets(rows)
    _, against = contests(facet, {}, TrainingNoise.known(rows))
    assert against.lines[0][against.headings.index("training seeds")] == "–"
    assert f"How far another training seed moves {METRIC} and accuracy@1000 is not known." in against.note


def test_one_network_has_no_noise_of_training(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = (trained(0, 0, 0, 9.0), trained(1, 0, 1, 9.5))
    monkeypatch.setattr(training_noise, "recorded", lambda: seeds)
    same = trained(5, 2, 0, 9.2)
    found = {one.name: one for one in pair(tmp_path / "same", same, same).differences}
    assert found[METRIC].training_text == "one network"
    assert found["throughput_images_per_s"].training_text == "–"
    other = dataclasses.replace(same, checkpoint="77" * 32)
    found = {one.name: one for one in pair(tmp_path / "other", same, other).differences}
    assert found[METRIC].training_text == "± 0.5"
    assert found[METRIC].words.endswith("within training noise)")


@pytest.mark.parametrize("images", [80, 300, 500, 2000, 5000])
def test_the_recorded_rows_hold_two_seeds_for_the_sweeps_numbers_of_images(images: int) -> None:
    rows = [row for row in RECORDED() if row.images == images]
    trained = {(row.strategy, row.training_seed) for row in rows}
    assert trained == {("raster", 0), ("raster", 1), ("lpd", 0), ("lpd", 1)}
    moved = TrainingNoise(tuple(seed_pairs(rows))).moved(f"fd_fashion@{images}", rows[:1])
    assert moved.keys() == {"raster, 256 steps", "lpd, 20 steps"}
    assert all(size > 0 for size in moved.values())
