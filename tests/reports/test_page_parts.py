"""The page's parts as data: matrix, points, lanes, cards, tables, images."""

import base64
import dataclasses
import io
import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image, ImageColor
from synthetic_rows import arrays, base_row, cell_row, sweep_rows

from harness.images.names import FASHION_CLASSES
from reports import class_names, style
from reports.artifacts import Artifacts, load_artifacts, load_method
from reports.contests import iso_within
from reports.drawings import drawings
from reports.frame import facets
from reports.grid import of_texts
from reports.images import Shown, sprite
from reports.matrix import matrix
from reports.methods import cards
from reports.points import AXES, facet_points
from reports.race import lanes, lanes_exist
from results.environments import result_key
from results.schema import Row
from results.store import load_rows

OWNERS = ["real", "reconstruction", "raster", "rar", "par", "lpd", "arpg"]


def curve(strategy: str, rate: float, shift: float, count: int = 4) -> list[Row]:
    rows = [
        cell_row(
            len(strategy) * 100 + at,
            strategy,
            strategy.upper(),
            20 - at,
            {},
            10.0 + shift + at,
            rate * 1.2**at,
        )
        for at in range(count)
    ]
    return [dataclasses.replace(row, guidance=1.0 + at) for at, row in enumerate(rows)]


def test_a_matrix_is_square_and_its_halves_are_inverse():
    iso = iso_within([*curve("raster", 50.0, 0.0), *curve("lpd", 150.0, 0.2), *curve("arpg", 70.0, 60.0)])
    assert iso is not None
    found = matrix(iso)
    assert found.names == ("RASTER", "LPD", "ARPG")
    assert found.strategies == ("raster", "lpd", "arpg")
    assert found.defined == 1
    above, below = found.fields[1][0], found.fields[0][1]
    assert above is not None
    assert below is not None
    assert float(above.text) == pytest.approx(1 / float(below.text), rel=0.03)
    assert above.shade == pytest.approx(-below.shade)
    assert above.shade > 0
    assert above.why.startswith("LPD takes 2.")
    assert "at equal fd_fashion@1000" in above.why
    hatched = found.fields[2][0]
    assert hatched is not None
    assert hatched.shade is None
    assert "undefined" in hatched.why
    assert "no common quality" in hatched.why
    assert all(found.fields[at][at] is None for at in range(3))


def test_points_carry_every_number_with_its_bounds():
    facet = facets(sweep_rows())[0]
    found = facet_points(facet, {}, OWNERS)
    json.dumps(found, allow_nan=False)
    assert len(found["cells"]) == 9  # the failed one is no point
    for point, row in zip(found["cells"], [row for row in facet.cells if row.status == "ok"], strict=True):
        assert set(point["x"]) == set(AXES)
        assert point["x"]["throughput"] == [row.throughput_images_per_s, *row.throughput_interval]
        assert point["x"]["latency"][0] == pytest.approx(1000 * row.latency_s)
        assert point["x"]["steps"] == [row.steps, None, None]
        entry = row.quality["fd_fashion@1000"]
        assert point["y"]["fd_fashion@1000"] == [entry["value"], entry["low"], entry["high"]]
        assert dict(point["texts"])["peak memory"].endswith("(n=1) MB")
    assert found["metrics"][0]["name"] == "fd_fashion@1000"
    assert found["metrics"][0]["lower"] is True
    assert found["published"] == []


def test_counts_behind_a_declared_acceptance_are_no_points():
    row = dataclasses.replace(cell_row(1, "raster", "Raster", 20, {}, 10.0, 60.0), acceptance=0.5)
    found = facet_points(facets([row])[0], {}, OWNERS)["cells"][0]["x"]
    assert set(found) == {"throughput", "latency", "memory"}


def beside(row: Row, **more: np.ndarray) -> dict[str, Artifacts]:
    made = {name: array for name, array in arrays(row).items() if name not in ("film", "lossiness_bits")}
    return {result_key(row): Artifacts(**(made | more))}


def test_a_lane_has_the_order_of_every_image_and_what_was_lost():
    row = cell_row(3, "lpd", "LPD", 10, {}, 10.0, 100.0)
    steps = np.random.default_rng(0).integers(10, size=(10, 8, 8)).astype(np.int16)
    lost = np.array([[0, 1, 5], [0, 1, 6], [9, 2, 63], [9, 2, 64], [10, 0, 0], [-1, 0, 0]])
    facet = facets([row])[0]
    (lane,) = lanes(facet, beside(row, steps_of_images=steps, lost_draws=lost), OWNERS)
    assert np.array(lane["steps"]).shape == (10, 64)
    assert (np.array(lane["steps"]) == steps.reshape(10, 64)).all()
    assert lane["lost"][0] == [1, 5, 1, 6]
    assert lane["lost"][9] == [2, 63]  # neither beyond the grid, nor of images that aren't there
    assert lane["classes"] == list(FASHION_CLASSES)
    assert lane["seconds"] == {"alone": row.latency_s, "batch 64": 1 / row.throughput_images_per_s}
    assert lane["share"][0] == pytest.approx(0.001 / (64 / 100))
    assert lane["name"] == "LPD"
    assert lane["setting"] == "10 steps"


def test_a_lane_of_older_rows_shows_their_one_image():
    row = cell_row(3, "lpd", "LPD", 10, {}, 10.0, 100.0)
    facet = facets([row])[0]
    (lane,) = lanes(facet, beside(row), OWNERS)
    assert len(lane["steps"]) == len(lane["classes"]) == len(lane["lost"]) == 1
    assert lanes_exist(facet, beside(row))
    assert lanes(facet, {result_key(row): Artifacts()}, OWNERS) == []
    assert not lanes_exist(facet, {result_key(row): Artifacts()})


def test_of_many_cells_the_best_of_each_label_race_first():
    rows = [*curve("raster", 50.0, 0.0, 10), *curve("lpd", 90.0, 1.0, 8)]
    stored = {key: one for row in rows for key, one in beside(row).items()}
    found = lanes(facets(rows)[0], stored, OWNERS)
    assert len(found) == 18
    assert [lane["setting"].split(",")[0] for lane in found if lane["first"]] == ["20 steps", "20 steps"]
    assert all(lane["first"] for lane in lanes(facets(rows[:3])[0], stored, OWNERS))


def test_lost_draws_may_be_none_but_have_three_columns(tmp_path):
    row = dataclasses.replace(cell_row(1, "lpd", "LPD", 8, {}, 1.0, 1.0), artifacts={"trace": "a.npz"})
    np.savez(tmp_path / "a.npz", lost_draws=np.zeros((0, 3), np.int16))
    found = load_artifacts(row, tmp_path)
    assert found.problems == ()
    assert found.lost_draws is not None
    np.savez(tmp_path / "a.npz", lost_draws=np.zeros((4, 2), np.int16), steps_of_images=np.zeros((0, 8, 8)))
    found = load_artifacts(row, tmp_path)
    assert (found.lost_draws, found.steps_of_images) == (None, None)
    assert len(found.problems) == 2


CARD = {
    "strategy": "lpd",
    "title": "LPD",
    "idea": "LPD: query tokens ask for any positions (Zhang et al., arXiv 2507.01957).",
    "paper": "2507.01957",
    "base": None,
    "kind": "groups planned beforehand",
    "traits": {"any_order": True, "batch_exact": True},
    "cache": {"network": {"layers": 6, "slots": 65}},
    "steps": {"16x16": [2, 256], "24x24": None},
    "decides": "whoever asks",
}


def facts(card: dict, rows: list[Row]) -> dict[str, str]:
    (found,) = cards(rows, {result_key(rows[0]): card} if card else {})
    return dict(found.facts)


def test_a_plug_ins_card_needs_no_plug_in():
    """Its title is stored; that it has no paper is no arXiv id."""
    rows = [cell_row(0, "diagonal", "Diagonal", 20, {}, 10.0, 60.0)]
    (found,) = cards(
        rows, {result_key(rows[0]): CARD | {"title": "Diagonal", "paper": "none", "idea": "Goes."}}
    )
    assert (found.title, found.idea) == ("Diagonal", "Goes.")
    assert dict(found.facts)["paper"] == "none"
    (found,) = cards(rows, {})
    assert found.title == "diagonal"


def test_a_card_joins_what_is_declared_and_what_was_measured():
    rows = [cell_row(at, "lpd", "LPD", steps, {}, 10.0, 60.0) for at, steps in enumerate((20, 10))]
    (found,) = cards(rows, {result_key(rows[1]): CARD})
    assert found.idea == "Query tokens ask for any positions."
    told = dict(found.facts)
    assert told["paper"] == "Zhang et al., arXiv 2507.01957"
    assert told["training"] == "a network of its own"
    assert (
        told["lossless"] == "lossy, bits an image: 3.20 ± 0.32 (LPD, 20 steps) to 6.40 ± 0.64 (LPD, 10 steps)"
    )
    assert told["steps"] == "16 × 16: 2 to 256"
    assert told["cache"] == "6 layers of 65 slots; 6.39 MB at batch 64"
    assert told["networks"] == "1, of 1.263 M parameters"
    assert "batches" not in told


def test_the_cache_of_every_network_is_shown():
    rows = [cell_row(0, "lpd", "LPD", 10, {}, 10.0, 60.0)]
    one, other = {"layers": 6, "slots": 424}, {"layers": 2, "slots": 0}
    told = facts(CARD | {"cache": {"drafter": one, "refiner": other}}, rows)
    assert told["cache"] == "drafter: 6 layers of 424 slots; refiner: none; 6.39 MB at batch 64"
    assert facts(CARD | {"cache": one}, rows)["cache"] == "6 layers of 424 slots; 6.39 MB at batch 64"


def test_lossless_is_declared_or_measured_and_a_base_named():
    rows = [cell_row(0, "raster", "Raster", 64, {}, 10.0, 60.0)]
    assert facts(CARD, rows)["lossless"] == "measured: 0 ± 0.0001 bits an image"
    declared = CARD | {"traits": {"lossless": True}, "base": "raster"}
    told = facts(declared, rows)
    assert told["lossless"].startswith("exact by declaration")
    assert told["training"].startswith("none: decodes the network of ")
    assert told["batches"] == "differ from their images one by one"


@pytest.mark.parametrize(
    "damaged",
    [
        {"idea": 3, "traits": [], "cache": {"layers": "x"}, "steps": {"16x16": [1, "2"]}},
        {"steps": [1], "cache": None, "kind": ["x"], "base": 4, "traits": "lossless"},
        {"cache": {"drafter": {"layers": 6, "slots": 424}, "refiner": 2}},
    ],
)
def test_a_damaged_card_is_shown_as_far_as_it_goes(damaged):
    told = facts(CARD | damaged, [cell_row(0, "lpd", "LPD", 10, {}, 10.0, 60.0)])
    assert told["cache"] == "6.39 MB at batch 64"


def test_rows_without_a_card_say_so():
    told = facts({}, [cell_row(0, "lpd", "LPD", 10, {}, 10.0, 60.0)])
    assert told["card"].startswith("not stored with these rows")
    assert "paper" not in told


def test_a_card_is_read_from_inside_the_results_alone(tmp_path):
    (tmp_path / "results" / "artifacts").mkdir(parents=True)
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    for name, text in (("good", json.dumps(CARD)), ("list", "[1]"), ("torn", "{")):
        (tmp_path / "results" / "artifacts" / f"{name}.json").write_text(text, encoding="utf-8")
    row = cell_row(0, "lpd", "LPD", 10, {}, 10.0, 60.0)

    def load(path: str):
        return load_method(dataclasses.replace(row, artifacts={"method": path}), tmp_path / "results")

    assert load("artifacts/good.json") == CARD
    assert [load(f"artifacts/{name}.json") for name in ("list", "torn", "gone")] == [None] * 3
    assert load("../secret.json") is None


def test_columns_of_numbers_are_told_from_texts():
    lines = [
        ("LPD, 10 steps", "1.2 ± 0.1", "–", "worse (paired)", "± 0.3", "0.5 to 0.7", "2 of 3 x"),
        ("PAR", "-0.2 [-0.3, 0.1]", "–", "better", "one network", "undefined", "3"),
    ]
    found = of_texts("t", tuple("abcdefg"), lines)
    assert found.headings == tuple("abdefg")
    assert found.numeric == (False, True, False, True, True, True)


def read(uri: str) -> Image.Image:
    """The image of a data URI."""
    kind, _, data = uri.partition(";base64,")
    assert re.fullmatch("data:image/(png|webp)", kind)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_images_are_small_and_look_alike():
    small = np.random.default_rng(0).integers(256, size=(12, 32, 32, 3), dtype=np.uint8)
    assert (np.asarray(read(sprite(small)).convert("RGB")) == np.concatenate(small[:10], axis=1)).all()
    large = np.full((3, 256, 128, 3), 90, np.uint8)
    image = read(sprite(large))
    assert image.size == (3 * 48, 96)
    assert len(sprite(large)) < 2000


def test_classes_have_their_names_where_the_data_has_some():
    row = cell_row(3, "lpd", "LPD", 10, {}, 10.0, 100.0)
    assert class_names.named(row, np.array([9, 0])) == ["ankle boot", "t-shirt"]
    assert class_names.named(row, [10, -1]) == ["10", "-1"]
    assert class_names.named(dataclasses.replace(row, reference=None), [3]) == ["3"]


def test_a_figure_on_the_page_is_small_and_its_paper_is_the_pages():
    """Many near greys: the few colours of a small file must not shift that of the paper."""
    forms = []
    for paper in (style.PAGE.paper, style.NIGHT.paper):
        image = Image.new("RGB", (300, 300), paper)
        noise = np.random.default_rng(0).integers(256, size=(200, 200, 1), dtype=np.uint8)
        image.paste(Image.fromarray(np.repeat(noise, 3, axis=2)), (50, 50))
        out = io.BytesIO()
        image.save(out, "png")
        forms.append(out.getvalue())
    shown = Shown.of(*forms, dots_per_inch=200)
    assert shown.width == 144
    for uri, paper in ((shown.light, style.PAGE.paper), (shown.dark, style.NIGHT.paper)):
        small = read(uri)
        assert small.mode == "P"
        assert small.convert("RGB").getpixel((0, 0)) == ImageColor.getrgb(paper)
    sheet = (resources.files("reports") / "templates" / "page.css").read_text()
    assert [one.lower() for one in re.findall("--paper: (#[0-9a-f]{6})", sheet)] == [
        style.PAGE.paper,
        style.NIGHT.paper,
    ]


def test_inks_of_a_figure_are_kept_however_many_colours_stand_beside_them():
    """Lines of one grey beside thousands of other colours."""
    noise = np.random.default_rng(0).integers(256, size=(200, 200, 3), dtype=np.uint8)
    inks = [style.GRID, style.MUTED, *(colour for colour, _ in style.PALETTE)]
    image = Image.new("RGB", (300, 300), style.PAGE.paper)
    image.paste(Image.fromarray(noise), (90, 90))
    for at, ink in enumerate(inks):
        image.paste(ImageColor.getrgb(ink), (0, 3 * at, 80, 3 * at + 2))
    out = io.BytesIO()
    image.save(out, "png")
    small = read(Shown.of(out.getvalue(), out.getvalue(), dots_per_inch=200).light)
    assert small.mode == "P"
    shown = small.convert("RGB")
    assert [shown.getpixel((40, 3 * at)) for at in range(len(inks))] == [
        ImageColor.getrgb(ink) for ink in inks
    ]
    far = np.abs(np.asarray(shown).astype(int) - np.asarray(image)).sum(axis=2)[90:290, 90:290]
    assert far.mean() < 80


def test_figures_on_the_page_leave_title_and_settings_to_it_and_take_its_inks(sweep: Path):
    rows = load_rows(sweep)
    facet = facets(rows)[0]
    stored = {result_key(row): load_artifacts(row, sweep) for row in rows}
    drawn = [(one, one.draw()) for one in drawings(facet, stored, {}, {}) if one.on_page]
    drawn = [(one, figure) for one, figure in drawn if figure is not None]
    assert len(drawn) > 4
    for one, figure in drawn:
        assert facet.caption[:40] in " ".join(text.get_text() for text in figure.findobj(Text))
        with style.drawn_for(style.NIGHT):
            dark = one.draw()
        assert dark is not None
        texts = dark.findobj(Text)
        assert facet.caption[:20] not in " ".join(text.get_text() for text in texts)
        assert one.title not in [text.get_text() for text in texts]
        assert to_hex(dark.get_facecolor()) == style.NIGHT.paper
        dim = [
            text.get_text()
            for text in texts
            if text.get_text().strip() and sum(to_rgb(text.get_color())) < 1.0 and text.get_fontsize() > 6
        ]
        assert dim == []
    assert style.scheme() is style.FILE


def test_colours_on_a_dark_page_stand_out_of_it():
    for strategy in (*OWNERS, "somebody's", "another"):
        light, dark = style.colour(strategy), style.dark_colour(strategy)
        assert re.fullmatch("#[0-9a-f]{6}", dark)
        assert luminance(dark) > 0.15
        assert strategy in style.ANCHORS or luminance(dark) > luminance(light)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_marker_has_a_shape_on_the_page():
    script = (style_folder() / "chart.js").read_text(encoding="utf-8")
    shapes = script.partition("const MARKERS = {")[2].partition("};")[0]
    for _, marker in (*style.PALETTE, ("", "d")):
        assert re.search(rf'(^|[\s,{{])"?{re.escape(marker)}"?:', shapes), marker


def style_folder():
    return Path(style.__file__).parent / "templates"


def test_anchors_have_samples_but_no_lane():
    row = base_row(1, strategy="real", label="Real images", tier="anchor", network="none")
    assert lanes(facets([row])[0], {}, OWNERS) == []


def test_every_picture_has_a_name_of_its_own_and_an_explanation_of_two_lines():
    speculative = [
        cell_row(at, "sjd", "SJD", 20, {"window": size}, 10.0, 60.0)
        for at, size in enumerate((8, 16), start=100)
    ]
    facet = facets([*sweep_rows(), *speculative])[0]
    tests = np.full((8, 8), 3)
    stored = {result_key(speculative[0]): Artifacts(drafts_tested=tests, drafts_accepted=tests)}
    found = list(drawings(facet, stored, {}, {}))
    assert {"samples", "windows", "acceptance"} <= {one.name for one in found}
    for names in ([one.name for one in found], [one.title for one in found]):
        assert len(set(names)) == len(names)
    assert all(40 < len(one.about) < 180 for one in found if one.on_page)


def test_a_lane_has_the_shares_of_planning_and_of_detokenizing():
    row = cell_row(3, "lpd", "LPD", 10, {}, 10.0, 100.0)
    (lane,) = lanes(facets([row])[0], beside(row), OWNERS)
    assert lane["share"] == pytest.approx([0.001 / 0.64, 0.05 / 0.64])


def test_points_are_in_the_units_of_their_axes():
    facet = facets(sweep_rows())[0]
    for point, row in zip(
        facet_points(facet, {}, OWNERS)["cells"], [r for r in facet.cells if r.status == "ok"], strict=True
    ):
        assert point["x"]["memory"][0] == pytest.approx(row.peak_bytes / 1e6)
        assert point["x"]["flops"][0] == pytest.approx(row.flops_per_image / 1e9)
