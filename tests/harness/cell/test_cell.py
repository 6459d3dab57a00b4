"""A cell's key names its result: equal for equal work, different for anything that changes a number."""

import dataclasses

import pytest

from harness.cell.cell import Cell, checked, normalised
from harness.machine.environment import usable_cores
from pardec.errors import UserError
from results.settings import DECLARED, SCHEDULES
from strategies.decoding import guidance

LPD = Cell("lpd", steps=10, guidance=2.0)


@pytest.mark.parametrize(
    "change",
    [
        {"strategy": "arpg"},
        {"options": {"order": "random"}},
        {"network": "zoo/other"},
        {"checkpoint": "random"},
        {"data": "imagefolder:x"},
        {"steps": 8},
        {"guidance": 1.5},
        {"guidance": None},
        {"guidance_schedule": "linear"},
        {"guidance_interval": 3},
        {"temperature": 0.9},
        {"top_k": 5},
        {"top_p": 0.9},
        {"batch": 32},
        {"images": 500},
        {"once": True},
        {"evaluation_size": 16},
        {"dtype": "bfloat16"},
        {"device": "cuda"},
        {"seed": 1},
        {"threads": 7},
        {"pins": {"network": "other"}},
    ],
)
def test_key_changes_with_whatever_changes_the_result(change):
    changed = dataclasses.replace(LPD, **change)
    assert normalised(changed).key != normalised(LPD).key


@pytest.mark.parametrize(
    "change", [{"label": "shown"}, {"size": "L"}, {"zoo": "/elsewhere"}, {"timeout_s": 5.0}]
)
def test_key_ignores_names_and_places(change):
    assert dataclasses.replace(LPD, **change).key == LPD.key


def test_key_is_16_hexadecimal_digits_and_stable():
    assert len(LPD.key) == 16
    assert int(LPD.key, 16) >= 0
    assert Cell("lpd", guidance=2.0, steps=10).key == LPD.key


def test_settings_that_cannot_matter_do_not_split_cells():
    unguided = [normalised(Cell("lpd", guidance_schedule=s, guidance_power=2.0)) for s in SCHEDULES]
    assert len({cell.key for cell in unguided}) == 1
    anchors = [normalised(Cell("real", steps=s, batch=b, seed=b, guidance=2.0)) for s, b in ((1, 2), (3, 4))]
    assert len({cell.key for cell in anchors}) == 1


SHA = "ab" * 32
PINNED = {
    "d1a38e5b7f21e05b": Cell("raster", threads=1),
    "fc3d878fea30f641": Cell(
        "lpd",
        {"order": "random"},
        network="zoo/lpd",
        steps=10,
        guidance=2.0,
        guidance_schedule="power-cosine",
        guidance_power=2.5,
        guidance_interval=3,
        threads=2,
        pins={"network": SHA, "tokenizer": SHA, "features": SHA, "judge": SHA},
    ),
    "c0452c8ce9bb54db": Cell("real", images=500, seed=9, batch=3, threads=1),
    "f7c51f8c6eb011ce": Cell(
        "arpg",
        network="arpg-l-256",
        checkpoint="/models/arpg.pt",
        tokenizer_checkpoint="random",
        guidance=4.0,
        guidance_schedule="linear",
        dtype="bfloat16",
        device="cuda",
        compile=True,
        cuda_graphs=True,
        batch=32,
        images=50_000,
        once=True,
        evaluation_size=256,
        threads=8,
        checkpoints="/models",
        plugin=("/a/b.py",),
        pins={"network": SHA},
    ),
    "20fdd18d1a9f2f24": Cell(
        "raster",
        network="llamagen-l-256",
        checkpoint="random",
        reference="/r/ref.npz",
        inception="download",
        clean_reference="/r/folder",
        clean_inception="/i.pt",
        products="packed",
        lossiness_images=7,
        temperature=0.9,
        top_k=100,
        top_p=0.95,
        threads=4,
        pins={"reference": SHA, "clean_reference": SHA, "clean_inception": SHA},
    ),
    "c0f80438b3838aae": Cell(
        "par",
        label="shown",
        size="L",
        timeout_s=5.0,
        memory_limit_gb=2.0,
        gated=False,
        zoo="/elsewhere",
        data="imagefolder:/pictures",
        seed=3,
        threads=1,
    ),
}
"""Key -> its cell: results on disk have these names."""
RECENT = {
    "d6ed200f9e2c05b8": Cell("raster", threads=1),
    "c5e04d6003cc5409": Cell("lpd", steps=20, by_batch=False, threads=1),
}


@pytest.mark.parametrize("key", PINNED)
def test_keys_stay_what_they_were(key):
    cell = PINNED[key]
    before = DECLARED["data"].before if cell.data == Cell("lpd").data else cell.data
    assert normalised(dataclasses.replace(cell, data=before)).key == key


@pytest.mark.parametrize("key", RECENT)
def test_keys_of_todays_data_set_stay_what_they_are(key):
    assert normalised(RECENT[key]).key == key


def test_a_setting_that_came_late_changes_the_key_only_where_it_is_used():
    late = [name for name, one in DECLARED.items() if one.late]
    assert {"acceptance", "weights"} <= set(late)
    assert set(LPD.content()) & set(late) == set()
    assert dataclasses.replace(LPD, acceptance=0.7).key != LPD.key


def test_all_cores_are_a_number():
    assert normalised(Cell("lpd")).threads == usable_cores()


def test_json_round_trip():
    cell = Cell("lpd", {"order": "random"}, plugin=("a.py",), pins={"network": "00"})
    assert Cell.from_json(cell.to_json()) == cell


def test_schedules_are_those_of_guidance():
    assert SCHEDULES == guidance.SCHEDULES


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", 0, "at least 1"),
        ("steps", -3, "at least 1"),
        ("steps", 2.5, "whole number"),
        ("steps", True, "whole number"),
        ("top_p", 1.5, "at most 1"),
        ("temperature", 0, "above 0"),
        ("dtype", "float23", "did you mean 'float32'"),
        ("guidance_schedule", "liner", "did you mean 'linear'"),
        ("guidance", "two", "a number, false for none, or 'tuned'"),
        ("options", "random", "table"),
        ("stepss", 4, "did you mean 'steps'"),
    ],
)
def test_wrong_values_name_key_value_and_expectation(key, value, expected):
    with pytest.raises(UserError, match="in the file") as error:
        checked(key, value, "in the file")
    assert expected in str(error.value)
    assert key in str(error.value)


def test_guidance_false_is_none():
    assert checked("guidance", False, "") is None
    assert checked("guidance", 2, "") == 2.0


def test_a_cell_is_described_by_what_tells_it_from_others():
    plain = Cell("lpd", steps=20, guidance=4.5)
    assert plain.describe() == "lpd, 20 steps, guidance 4.5"
    other = dataclasses.replace(plain, dtype="bfloat16", batch=8)
    assert other.describe() == "lpd, 20 steps, guidance 4.5, batch 8, bfloat16"
