"""Settings as one types them: texts that look like numbers, commas in paths, and quotes that are none."""

import pytest

from harness.cell.cell import ANCHORS, Cell
from harness.cell.inline import alternatives, inline_cell, pieces
from harness.cell.sweep_file import select
from harness.sweep.find import find_cell
from pardec.errors import UserError


def cell(text: str) -> Cell:
    return find_cell(text, {}, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,b=2", ["a=1", "b=2"]),
        ('a="1,2",b=3', ['a="1,2"', "b=3"]),
        ("a='x, y' , b= \"u,v\"", ["a='x, y' ", ' b= "u,v"']),
        ("a=it's,b=o'clock", ["a=it's", "b=o'clock"]),  # quotes within a value are part of it
        ("a='x,b=y", ["a='x", "b=y"]),
        ('a=b"c,d",e=1', ['a=b"c', 'd"', "e=1"]),
        ("a='x,y'z,b=1", ["a='x", "y'z", "b=1"]),
        ("label='a,b'|\"c,d\",b!='e,f'", ["label='a,b'|\"c,d\"", "b!='e,f'"]),
        ("a=1,,b", ["a=1", "", "b"]),
        ("", [""]),
    ],
)
def test_commas_in_quoted_values_separate_nothing(text, expected):
    assert pieces(text) == expected


def test_alternatives_lose_their_quotes():
    assert alternatives("a|'b,c'|\"d\"") == ["a", "b,c", "d"]
    assert alternatives("'a|b'") == ["a|b"]


@pytest.mark.parametrize("label", ["2024", "1e5", "true", "none", "-3", "nan", "0x10", "it's"])
def test_a_text_may_look_like_anything(label):
    assert cell(f"strategy=lpd,label={label}").label == label
    assert cell(f'strategy=lpd,label="{label}"').label == label


def test_a_path_may_hold_commas_and_numbers():
    published = "strategy=lpd,network=lpd-l-256"
    assert cell(f"{published},checkpoint='/a b/c,d=e.pt',steps=8").checkpoint == "/a b/c,d=e.pt"
    assert cell(f"{published},checkpoint=/bob's/c.pt").checkpoint == "/bob's/c.pt"
    assert cell(f"{published},checkpoint=2024").checkpoint == "2024"
    assert cell(f'data="imagefolder:/a,b",{published}').data == "imagefolder:/a,b"


def test_values_keep_their_types():
    found = cell("strategy=lpd,steps=10,guidance=2,once=true,order=random,repulsion=3,temperature=0.5")
    assert (found.steps, found.guidance, found.once, found.temperature) == (10, 2.0, True, 0.5)
    assert found.options == {"order": "random", "repulsion": 3}
    assert cell("strategy=lpd,guidance=none").guidance is None
    assert cell('strategy="lpd",order="random"').options == {"order": "random"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("strategy=lpd,checkpoint=a,b.pt", ["'b.pt' is no setting", "a value with commas in quotes"]),
        ("strategy=lpd,steps='10'", ['steps = "10"', "a whole number"]),
        ("strategy=lpd,steps=10,steps=12", ["'steps' is set twice"]),
        ("strategy=lpd,label=", ["'label=' is no setting"]),
        ("strategy=lpd,steps=ten", ['steps = "ten"', "a whole number"]),
        ("strategy=lpd,repulsion=inf", ["repulsion = inf: expected a finite number, text, true or false"]),
        ("lpd,repulsion=nan", ["repulsion = nan: expected a finite number"]),
        ("lpd,repulsion=1e999", ["repulsion = 1e999: expected a finite number"]),
    ],
)
def test_mistakes_name_what_was_expected(text, words):
    with pytest.raises(UserError) as caught:
        cell(text)
    for word in words:
        assert word in str(caught.value)


def test_images_that_are_made_once_are_one_batch_unless_told_otherwise():
    assert cell("lpd,once=true").images == Cell.batch
    assert cell("lpd,once=true,batch=8").images == 8
    assert find_cell("lpd,once=true", {"batch": 16}, None).images == 16
    assert cell("lpd,once=true,batch=8,images=20").images == 20
    assert find_cell("lpd,once=true", {"images": 30}, None).images == 30
    assert cell("lpd,once=false,batch=8").images == Cell.images


def test_an_anchor_has_no_options():
    assert inline_cell("strategy=real,images=10", {}, ANCHORS).images == 10
    with pytest.raises(UserError, match="unknown key 'order' in cell 'strategy=real,order=random'"):
        inline_cell("strategy=real,order=random", {}, ANCHORS)


def test_conditions_on_texts_with_commas():
    cells = [Cell("lpd", label=label) for label in ("a, b", "2024", "c|d")]
    assert [one.label for one in select(cells, "label='a, b'|2024,strategy=lpd")] == ["a, b", "2024"]
    assert [one.label for one in select(cells, "label='c|d'")] == ["c|d"]
    assert [one.label for one in select(cells, "label!='a, b'")] == ["2024", "c|d"]
