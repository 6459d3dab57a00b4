"""The report's page in a real browser: every control does what it says, and no text of others is obeyed."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic_rows import cell_row

from harness.images.names import FASHION_CLASSES
from reports import site
from reports.site import write_report
from results.store import ResultStore
from tests.reports.opened_page import CELLS, HOSTILE, Open, points, shown

ROOT = Path(__file__).parents[2]
WIDTHS = (1400, 390)


# The frame -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), [*((width, "light") for width in WIDTHS), (390, "dark")])
def test_nothing_is_wider_than_the_window(opened: Open, width: int, scheme: str) -> None:
    page = opened(width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")


def test_texts_of_others_are_shown_and_not_obeyed(opened: Open) -> None:
    page = opened()
    points(page, "<img").hover()
    points(page, "<img").click()
    assert HOSTILE in page.locator("#tip").text_content()
    assert HOSTILE in page.locator("#picture-0 .pins").text_content()
    assert HOSTILE in page.locator("#race-0 .lanes").text_content()
    assert HOSTILE in page.locator("#numbers-0 .failures").text_content()
    assert page.evaluate("window.hit") is None
    assert page.locator("b").count() == 0
    assert page.locator("img:not([src^='data:'])").count() == 0


def test_one_facet_is_shown_at_a_time(opened: Open) -> None:
    page = opened()
    assert (shown(page, "#answer-0"), shown(page, "#answer-1")) == (1, 0)
    page.locator("#facet").select_option("1")
    assert (shown(page, "#answer-0"), shown(page, "#answer-1")) == (0, 1)
    assert page.locator("nav [data-part=race]").get_attribute("href") == "#race-1"
    assert shown(page, "#picture-1 [data-point]") == 3


def test_print_shows_all_and_no_controls(opened: Open) -> None:
    page = opened()
    page.set_viewport_size({"width": 720, "height": 900})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert (shown(page, "#answer-0"), shown(page, "#answer-1")) == (1, 1)
    assert shown(page, "#pictures-0 [role=tabpanel]") == 2
    assert shown(page, ".controls") == shown(page, "nav") == shown(page, ".tools") == 0


def test_motion_is_asked_for(opened: Open) -> None:
    page = opened(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.wait_for_timeout(300)
    assert page.locator("#race-0 [name=time]").input_value() == "300"  # nothing plays by itself


def test_the_keyboard_reaches_every_control(opened: Open) -> None:
    page = opened()
    at = "['name', 'role', 'class'].map((one) => document.activeElement.getAttribute(one)).find(Boolean)"
    page.keyboard.press("Tab")
    assert page.evaluate(at) == "skip"
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(at))
    assert {"x", "metric", "bars", "front", "button", "play", "time", "speed", "class"} <= reached


def test_without_scripts_every_table_and_picture_is_there(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert shown(page, "#answer-1") == 1
    assert shown(page, "#pictures-0 img") == 2
    assert "LPD" in page.locator("#numbers-0").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_on_the_pages_own_paper(opened: Open, tmp_path: Path, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    page.locator("#pictures-0 img:visible").screenshot(path=tmp_path / "picture.png")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    with Image.open(tmp_path / "picture.png") as image:
        rim = image.convert("RGB").getpixel((1, 1))
    assert f"rgb{rim}" == paper
    page.emulate_media(media="print")
    source = page.locator("#pictures-0 img:visible").first.evaluate("one => one.currentSrc === one.src")
    assert source  # the light one goes to the printer


def test_pictures_are_shown_in_their_own_size_and_a_narrow_page_scrolls_them(opened: Open) -> None:
    width = "#pictures-0 [role=tabpanel]:visible img"
    wide = opened(1600).locator(width).bounding_box()["width"]
    assert 400 < wide < 500  # 4 inches and their margin
    narrow = opened(390)
    assert 330 < narrow.locator(width).bounding_box()["width"] < wide + 1


# The picture ---------------------------------------------------------------------------------------------


def label(page: Any, axis: str) -> str:
    return " ".join(page.locator(f"#picture-0 svg g[aria-label='{axis}-axis label']").all_text_contents())


def test_the_switch_changes_what_lies_across(opened: Open) -> None:
    page = opened()
    for axis, title in TITLES.items():
        page.locator(f"#picture-0 input[value={axis}]").check(force=True)
        assert label(page, "x").startswith(title)
        assert points(page).count() == len(CELLS)


TITLES = {
    "throughput": "images/s",
    "latency": "latency, ms",
    "steps": "steps",
    "tokens": "tokens per image",
    "memory": "peak memory, MB",
    "flops": "GFLOPs per image",
}


@pytest.mark.parametrize("width", [1280, 390])
def test_labels_keep_off_the_numbers_of_the_axis_and_inside_the_picture(opened: Open, width: int) -> None:
    page = opened(width)
    frame = page.locator("#picture-0 svg").first.bounding_box()
    boxes = page.locator("#picture-0 svg .labels text").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) > 2
    assert all(frame["x"] + 50 <= box["left"] for box in boxes)
    assert all(box["right"] <= frame["x"] + frame["width"] + 1 for box in boxes)


def test_names_of_anchors_keep_apart(opened: Open) -> None:
    tops = (
        opened()
        .locator("#picture-0 svg text:text-matches('^(Real images|Reconstructions)$')")
        .evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
    )
    assert len(tops) == 2
    assert abs(tops[0] - tops[1]) > 11


def test_a_log_scale_counts_by_one_two_five(opened: Open) -> None:
    page = opened()
    assert page.evaluate("decades([0.13, 9])") == [0.2, 0.5, 1, 2, 5]
    assert page.evaluate("decades([3, 8.5])") == [3, 4, 5, 6, 7, 8]
    assert page.evaluate("decades([-1, 0.02, 40])") == [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    assert page.evaluate("decades([93, 240])") == [100, 150, 200]
    assert page.evaluate("decades([3, 3000], keepApart(3, 3000, 100, false))") == [10, 100, 1000]


def test_the_metric_changes_what_lies_up(opened: Open) -> None:
    page = opened()
    assert label(page, "y").startswith("fd_fashion@1000, lower is better")
    before = points(page).nth(0).bounding_box()["y"]
    page.locator("#picture-0 [name=metric]").select_option("accuracy@1000")
    assert label(page, "y").startswith("accuracy@1000, higher is better")
    assert points(page).nth(0).bounding_box()["y"] != before


def test_intervals_front_and_published_points_come_and_go(opened: Open) -> None:
    page = opened()
    for name, selector in (("bars", ".bar"), ("front", ".front")):
        assert page.locator(f"#picture-0 svg {selector}").count() > 0
        page.locator(f"#picture-0 [name={name}]").uncheck()
        assert page.locator(f"#picture-0 svg {selector}").count() == 0
    assert not page.locator("#picture-0 [name=published]").is_visible()  # no paper speaks of digits
    page.locator("#facet").select_option("2")
    page.locator("#picture-2 input[value=steps]").check(force=True)
    assert page.locator("#picture-2 svg .printed > *").count() == 0
    page.locator("#picture-2 [name=published]").check()
    assert page.locator("#picture-2 svg .printed > *").count() > 0


def test_a_point_shows_its_numbers_and_samples(opened: Open) -> None:
    page = opened()
    assert not page.locator("#tip").is_visible()
    points(page, "LPD, 20 steps").hover()
    card = page.locator("#tip")
    text = card.inner_text()
    assert "LPD, 20 steps" in text
    assert re.search(r"fd_fashion@1000\s+11\.8\d* ± 0\.7", text)
    assert card.locator("img").get_attribute("src").startswith("data:image/png;base64,")
    assert card.locator("img").get_attribute("alt") == f"Samples of classes {', '.join(FASHION_CLASSES)}"
    page.mouse.move(5, 5)
    assert not card.is_visible()


def test_points_are_kept_by_click_and_by_key_and_removed(opened: Open) -> None:
    page = opened()
    points(page, "PAR").click()
    points(page, "PAR").click()
    points(page, "Raster").focus()
    assert "Raster" in page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    pins = page.locator("#picture-0 .pins .card-of")
    assert pins.count() == 2
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    page.get_by_role("button", name="Remove PAR, 19 steps").click()
    assert pins.count() == 1
    points(page, "PAR").click()
    assert pins.count() == 2


# The race ------------------------------------------------------------------------------------------------


def lanes(page: Any) -> list[str]:
    return page.locator("#race-0 .lane strong").all_text_contents()


def seek(page: Any, share: float) -> None:
    page.locator("#race-0 [name=time]").fill(str(round(1000 * share)))


def test_the_race_plays_pauses_and_ends(opened: Open) -> None:
    page = opened()
    time = page.locator("#race-0 [name=time]")
    seek(page, 0)
    assert all(text.startswith("0 /") for text in page.locator("#race-0 .steps").all_text_contents())
    page.locator("#race-0 [name=speed]").select_option("4")
    page.locator("#race-0 .play").click()
    page.wait_for_function("document.querySelector('#race-0 [name=time]').value > 100")
    assert "slower" in page.locator("#race-0 .clock").text_content()
    page.locator("#race-0 .play").click()
    assert page.locator("#race-0 .play").text_content() == "Play"
    held = time.input_value()
    page.wait_for_timeout(120)
    assert time.input_value() == held
    seek(page, 0.97)
    page.locator("#race-0 .play").click()
    page.wait_for_function("document.querySelector('#race-0 [name=time]').value === '1000'")
    assert page.locator("#race-0 .lane.finished").count() == len(CELLS)


def test_the_fastest_stands_first_and_finishes_first(opened: Open) -> None:
    page = opened()
    assert lanes(page) == [HOSTILE, "LPD", "LPD", "PAR", "SJD", "SJD", "Raster"]
    seek(page, 0.5)
    finished = page.locator("#race-0 .lane").evaluate_all(
        "all => all.map((lane) => lane.classList.contains('finished'))"
    )
    assert finished == [True] * 5 + [False] * 2
    assert "an image in a batch of 64" in page.locator("#race-0 [name=timed]").inner_text()
    page.locator("#race-0 [name=timed]").select_option("batch 64")
    assert lanes(page)[-1] == "Raster"


def test_another_class_is_another_image(opened: Open) -> None:
    page = opened()
    seek(page, 1)
    picture = "document.querySelector('#race-0 canvas').toDataURL()"
    page.wait_for_function("document.querySelector('#race-0 canvas').width === 192")
    before = page.evaluate(picture)
    page.locator("#race-0 [name=class]").select_option("sneaker")
    assert page.evaluate(picture) != before


def test_a_draw_that_is_not_kept_flashes(opened: Open) -> None:
    page = opened()
    orange = """(at) => {
      const canvas = document.querySelectorAll('#race-0 canvas')[at];
      const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
      pen.drawImage(canvas, 0, 0);
      const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4) count += data[i] > 200 && data[i + 2] < 90 && data[i + 3] > 0;
      return count;
    }"""
    page.wait_for_function("document.querySelector('#race-0 canvas').width === 192")
    place = lanes(page).index("SJD")
    seen = page.evaluate(
        """(at) => Array.from({ length: 60 }, (_, share) => {
          const time = document.querySelector('#race-0 [name=time]');
          time.value = share;
          time.dispatchEvent(new Event('input', { bubbles: true }));
          return (ORANGE)(at);
        })""".replace("ORANGE", orange),
        place,
    )
    assert max(seen) > 0
    assert min(seen) == 0
    assert page.evaluate(orange, lanes(page).index("Raster")) == 0


def test_the_race_is_recorded_as_frames_and_a_sheet(
    report: Path,
    browser: Any,
    tmp_path: Path,
) -> None:
    spec = importlib.util.spec_from_file_location("race_frames", ROOT / "docs" / "race_frames.py")
    assert spec is not None
    assert spec.loader is not None
    race_frames = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(race_frames)
    frames = race_frames.record(browser, report, tmp_path / "frames", (0.1, 1.0), label="sneaker", width=800)
    assert [path.name for path, _ in frames] == ["race-0100.png", "race-1000.png"]
    early, late = (np.asarray(Image.open(path).convert("RGB")) for path, _ in frames)
    assert early.shape == late.shape
    assert early.shape[1] > 1200  # twice as sharp as the page
    assert (early != late).mean() > 0.02
    slowest = frames[1][1].partition(" of ")[2]
    assert frames[1][1] == f"{slowest} of {slowest}"
    assert frames[0][1].endswith(f" of {slowest}")
    whole = Image.open(race_frames.sheet(frames, tmp_path / "race.png"))
    assert whole.size == (early.shape[1], 2 * (early.shape[0] + race_frames.HEAD))
    empty = tmp_path / "empty.html"
    empty.write_text('<div id="race-0"></div>')
    with pytest.raises(ValueError, match="has no race"):
        race_frames.record(browser, empty, tmp_path / "frames")


# Matrix, tables, tabs ------------------------------------------------------------------------------------


def test_a_field_of_the_matrix_gives_its_reason(opened: Open) -> None:
    page = opened()
    page.locator("#iso-0 .matrix td.undefined").first.hover()
    assert "undefined" in page.locator("#tip").inner_text()
    page.locator("#iso-0 .matrix tr:has(th:text-is('LPD')) .faster").first.focus()
    assert re.search(
        "LPD takes .* times .*'s speed at equal fd_fashion@1000", page.locator("#tip").inner_text()
    )


def test_no_name_of_the_matrix_is_cut_on_a_narrow_page(opened: Open) -> None:
    heads = opened(390).locator("#iso-0 .matrix tbody th")
    assert heads.count() > 2
    assert heads.evaluate_all("all => all.every((one) => one.scrollWidth <= one.clientWidth)")
    assert heads.get_by_text("Raster", exact=True).bounding_box()["height"] < 45  # nor its letters parted


def column(page: Any, name: str, at: int) -> list[str]:
    return (
        page.locator(f"table[data-name='{name}']")
        .first.locator(f"tbody tr:visible > :nth-child({at})")
        .all_text_contents()
    )


def test_a_heading_sorts_by_numbers_both_ways_and_leaves_the_missing_last(opened: Open) -> None:
    page = opened()
    head = page.locator("table[data-name=Quality]").first.get_by_role("button", name="steps")
    head.click()
    rising = column(page, "Quality", 2)
    assert rising == ["4", "10", "10", "16", "19", "20", "32", "64", "–", "–"]
    head.click()
    assert column(page, "Quality", 2) == ["64", "32", "20", "19", "16", "10", "10", "4", "–", "–"]
    assert page.locator("#numbers-0 th[aria-sort=descending]").count() == 1


def test_a_filter_and_the_column_menu_hide(opened: Open) -> None:
    page = opened()
    holder = page.locator("#numbers-0 .table").nth(1)
    holder.get_by_role("searchbox").fill("raster")
    assert column(page, "Quality", 1) == ["Raster"]
    holder.locator("summary").click()
    holder.get_by_label("guidance").uncheck()
    assert not holder.get_by_role("button", name="guidance").is_visible()


def test_the_first_column_stays_in_view(opened: Open) -> None:
    page = opened(390)
    box = page.locator("#numbers-0 .scroll").nth(1)
    first = box.locator("tbody th").first
    before = first.bounding_box()["x"]
    box.evaluate("box => (box.scrollLeft = 300)")
    assert box.evaluate("box => box.scrollLeft") > 100
    assert first.bounding_box()["x"] == pytest.approx(before, abs=1)


def test_tables_are_copied_as_they_are_shown(opened: Open) -> None:
    page = opened()
    page.evaluate("navigator.clipboard.writeText = (text) => Promise.resolve((window.copied = text))")
    holder = page.locator("#numbers-0 .table").nth(1)
    holder.get_by_role("searchbox").fill("onerror")
    found = {}
    for form in ("CSV", "Markdown", "LaTeX"):
        holder.get_by_role("button", name=f"Copy as {form}").click()
        page.wait_for_function("window.copied")
        found[form] = page.evaluate("window.copied")
    assert found["CSV"].splitlines()[0].startswith("strategy,steps,guidance,fd_fashion@1000")
    assert found["CSV"].splitlines()[1].startswith('"<img src=x onerror=""window.hit=1"">')
    assert "\\<img src=x onerror" in found["Markdown"]
    assert found["LaTeX"].splitlines()[:2][1] == "\\toprule"
    assert "fd\\_fashion@1000" in found["LaTeX"]
    assert "$\\pm$" in found["LaTeX"]
    assert "\\$\\{1\\}" in found["LaTeX"]
    assert found["LaTeX"].endswith("\\bottomrule\n\\end{tabular}")


def test_tabs_by_click_and_by_arrow(opened: Open) -> None:
    page = opened()
    panels = page.locator("#pictures-0 [role=tabpanel]")
    assert [panels.nth(at).is_visible() for at in range(2)] == [True, False]
    page.locator("#pictures-0").get_by_role("tab", name="Second").click()
    assert [panels.nth(at).is_visible() for at in range(2)] == [False, True]
    page.keyboard.press("ArrowRight")
    assert [panels.nth(at).is_visible() for at in range(2)] == [True, False]
    assert page.locator("#pictures-0 [role=tab][aria-selected=true]").text_content() == "First"


def test_a_command_is_copied(opened: Open) -> None:
    page = opened()
    page.evaluate("navigator.clipboard.writeText = (text) => Promise.resolve((window.copied = text))")
    page.locator(".copier:visible").first.click()
    page.wait_for_function("window.copied")
    assert page.evaluate("window.copied") == "pardec sweep iso-quality"


def test_rows_without_traces_say_how_to_get_a_race(opened: Open, tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.append(cell_row(0, *CELLS[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "drawings", lambda *_: [])
        page = opened(path=write_report(tmp_path))
    assert "no stored traces" in page.locator("#race-0").inner_text()
    assert shown(page, "#race-0 .controls") == 0
    assert points(page).count() == 1
