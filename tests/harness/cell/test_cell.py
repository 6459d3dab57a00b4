"""A cell's key names its result: equal for equal work, different for anything that changes a number."""

import dataclasses

import pytest

from harness.cell.cell import RULES, SCHEDULES, Cell, checked, normalised
from harness.machine.environment import usable_cores
from pardec.errors import UserError
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


def test_all_cores_are_a_number():
    assert normalised(Cell("lpd")).threads == usable_cores()


def test_json_round_trip():
    cell = Cell("lpd", {"order": "random"}, plugin=("a.py",), pins={"network": "00"})
    assert Cell.from_json(cell.to_json()) == cell


def test_schedules_are_those_of_guidance():
    assert SCHEDULES == guidance.SCHEDULES


def test_every_rule_is_a_field():
    assert set(RULES) <= {field.name for field in dataclasses.fields(Cell)}


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
        ("guidance", "two", "a number, or false"),
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
    assert other.describe() == "lpd, 20 steps, guidance 4.5, bfloat16, batch 8"
