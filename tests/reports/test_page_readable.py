"""What stands on the page can be read, wide or narrow: numbers of axes, names in colours, commands."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from reports import rerun, site
from reports.points import AXES
from reports.site import write_report
from results.store import ResultStore
from tests.reports.opened_page import CELLS, Open, points
from tests.reports.synthetic_rows import cell_row


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_every_tick_of_a_log_axis_has_its_number_and_none_touches_another(opened: Open, width: int) -> None:
    page = opened(width)
    for axis, side in itertools.product(AXES, ("x", "y")):
        page.locator(f"#picture-0 input[value={axis}]").check(force=True)
        marks = page.locator(f"#picture-0 svg [aria-label='{side}-axis tick'] path").count()
        texts = page.locator(f"#picture-0 svg [aria-label='{side}-axis tick label'] text")
        shown = texts.all_text_contents()
        assert len(shown) == marks >= 3
        assert all(re.fullmatch(r"[\d.]+", text) for text in shown)
        boxes = texts.evaluate_all("all => all.map((one) => one.getBoundingClientRect().toJSON())")
        ends = ("left", "right") if side == "x" else ("top", "bottom")
        spans = sorted((box[ends[0]], box[ends[1]]) for box in boxes)
        assert all(right < left for (_, right), (left, _) in itertools.pairwise(spans))


CONTRAST = """all => all.map((one) => {
  const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const light = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const parts = [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
    const linear = parts.map((part) => (part > 0.03928 ? ((part + 0.055) / 1.055) ** 2.4 : part / 12.92));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const look = getComputedStyle(one), paper = getComputedStyle(document.body).backgroundColor;
  const [low, high] = d3.extent([light(one.closest('svg') ? look.fill : look.color), light(paper)]);
  return [one.textContent, (high + 0.05) / (low + 0.05)];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_in_the_colours_of_strategies_can_be_read(opened: Open, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    points(page, "PAR").first.click()
    for names in (".chart .labels text", ".card-of strong", ".lane strong"):
        found = page.locator(f"{names}:visible").evaluate_all(CONTRAST)
        assert found
        assert all(ratio > 4.5 for _, ratio in found), found


def test_an_interval_that_reaches_nothing_leaves_room_for_the_others(opened: Open, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for at, cell in enumerate(CELLS[:4]):
        row = cell_row(at, *cell)
        named = dict(row.quality or {})
        value = (0.4, 0.8, 2.0, 6.0)[at]
        named["fd_fashion@1000"] = named["fd_fashion@1000"] | {
            "value": value,
            "low": 0.0,
            "high": 1.2 * value,
        }
        store.append(dataclasses.replace(row, quality=named, quality_replicates=None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "drawings", lambda *_: [])
        page = opened(path=write_report(tmp_path))
    texts = page.locator("#picture-0 svg [aria-label='y-axis tick label'] text").all_text_contents()
    assert texts == ["0.2", "0.5", "1", "2", "5"]
    assert page.locator("#picture-0 svg .bar > *").count() == 8  # cut by the frame, and there
    frame = page.locator("#picture-0 svg").bounding_box()
    middles = [box["y"] + box["height"] / 2 for box in (one.bounding_box() for one in points(page).all())]
    assert max(middles) - min(middles) > frame["height"] / 2


def test_what_no_card_tells_is_said_once(opened: Open, tmp_path: Path) -> None:
    """Each card says it where others have theirs."""
    said, told = "a sweep of this version stores", {}
    for name, stored in (("none", {}), ("one", {"artifacts": {"method": "artifacts/par.json"}})):
        store = ResultStore(tmp_path / name)
        (tmp_path / name / "artifacts").mkdir(exist_ok=True)
        (tmp_path / name / "artifacts" / "par.json").write_text('{"idea": "Goes."}', encoding="utf-8")
        for at, cell in enumerate(CELLS[:3]):
            store.append(dataclasses.replace(cell_row(at, *cell), **(stored if cell[0] == "par" else {})))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(site, "drawings", lambda *_: [])
            page = opened(path=write_report(tmp_path / name))
        told[name] = [
            page.locator("#methods").inner_text().count(said),
            page.locator("#methods .about").count(),
        ]
    assert told == {"none": [1, 1], "one": [2, 0]}


def test_anchors_are_named_on_a_narrow_page(opened: Open) -> None:
    page = opened(390)
    names = page.locator("#picture-0 svg .anchors text")
    assert set(names.all_text_contents()) == {"Real images", "Reconstructions"}
    assert all(box["x"] + box["width"] < 390 for box in (one.bounding_box() for one in names.all()))


def test_commands_break_at_commas_and_only_commands_look_like_one(opened: Open, tmp_path: Path) -> None:
    store, command = ResultStore(tmp_path), "pardec sweep strategy=par,steps=19,label=<b>"
    for at, cell in enumerate(CELLS[:2]):
        store.append(cell_row(at, *cell))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "drawings", lambda *_: [])
        patch.setattr(rerun, "command", lambda row: command if row.strategy == "par" else None)
        page = opened(path=write_report(tmp_path))
    codes = page.locator("#about td code")
    assert codes.all_text_contents() == [command]
    assert codes.locator("wbr").count() == 2
    assert page.locator("#about td", has_text="no command line holds its settings").count() == 1
