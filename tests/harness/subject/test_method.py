"""Cards of methods: what a class declares and its plans say, as data."""

import json

import pytest

from harness.cell.inline import inline_cell
from harness.subject.method import method_card, store_method
from harness.subject.prepare import prepare


def card(text: str, zoo):
    return method_card(prepare(inline_cell(text, {"zoo": str(zoo)})))


@pytest.mark.parametrize(
    ("text", "kind", "base", "at_16", "decides"),
    [
        ("raster", "one token a step", None, [256, 256], "the grid"),
        ("par", "groups planned beforehand", None, [67, 67], "the grid"),
        ("lpd,steps=10", "groups planned beforehand", None, [2, 256], "whoever asks"),
        ("lpd,steps=64", "groups planned beforehand", None, [2, 256], "whoever asks"),
        ("zipar", "groups planned beforehand", "raster", [144, 144], "the grid"),
        ("arpg,steps=10", "groups planned beforehand", None, [1, 256], "whoever asks"),
        ("sjd", "speculative", "raster", [1, 256], "the image: as many drafts as its test accepts"),
    ],
)
def test_a_card_says_what_the_method_is(small_zoo, text, kind, base, at_16, decides):
    found = card(text, small_zoo)
    assert (found["kind"], found["base"], found["decides"]) == (kind, base, decides)
    assert found["steps"]["16x16"] == at_16
    assert found["steps"]["24x24"][1] in (147, 224, 576)
    assert found["idea"].startswith(f"{found['title']}: ")
    assert found["cache"]["network"]["layers"] == 2 or found["strategy"] == "arpg"
    assert json.loads(json.dumps(found)) == found


def test_each_network_of_a_method_has_its_own_cache():
    prepared = prepare(inline_cell("code", {}))
    found = method_card(prepared)
    assert list(found["cache"]) == ["drafter", "refiner"]
    drafter, refiner = found["cache"].values()
    assert drafter["slots"] < refiner["slots"]
    assert drafter["layers"] == prepared.config.of("drafter").trunk.depth
    assert refiner["layers"] == prepared.config.of("refiner").trunk.depth


def test_traits_are_those_that_hold(small_zoo):
    assert card("raster", small_zoo)["traits"]["lossless"] is True
    assert card("lpd,steps=4", small_zoo)["traits"] == {"any_order": True, "batch_exact": True}


def test_a_card_lies_among_the_artifacts(small_zoo, tmp_path):
    assert card("zipar", small_zoo)["learning"]["strategy"] == "raster"  # whose network it decodes
    prepared = prepare(inline_cell("lpd,steps=4", {"zoo": str(small_zoo)}))
    artifact = store_method(prepared, tmp_path)
    assert artifact == {"method": f"artifacts/{prepared.cell.key}.method.json"}
    assert json.loads((tmp_path / artifact["method"]).read_text(encoding="utf-8")) == method_card(prepared)
