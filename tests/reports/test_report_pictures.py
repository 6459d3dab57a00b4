"""Curves and pictures: what they show, that labels keep apart, and that one colour means one strategy."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from synthetic_rows import sweep_rows

from harness.cell.cell import ANCHORS
from harness.images.names import FASHION_CLASSES
from reports import pictures, plots, style
from reports.artifacts import Artifacts, load_artifacts
from reports.frame import Facet, facets
from results.environments import result_key
from results.schema import Row
from results.store import load_rows
from strategies.decoding import registry

METRIC = "fd_fashion@1000"
MAIN = ("raster", "rar", "par", "lpd", "arpg", "randar")


@pytest.fixture
def facet() -> Facet:
    return facets(sweep_rows())[0]


@pytest.fixture
def artifacts(sweep: Path) -> dict[str, Artifacts]:
    return {result_key(row): load_artifacts(row, sweep) for row in load_rows(sweep)}


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of visible labels inside the axes whose boxes overlap."""
    figure.canvas.draw()
    shown = [text for axes in figure.axes for text in axes.texts if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]
    return [(a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2) if one.overlaps(two)]


@pytest.mark.parametrize("metric", [METRIC, "accuracy@1000", "kid_fashion@1000"])
@pytest.mark.parametrize("draw", [plots.quality_against_throughput, plots.quality_against_steps])
def test_trade_offs_name_every_series_and_anchor(facet: Facet, metric: str, draw: object) -> None:
    figure = draw(facet, metric)  # type: ignore[operator]
    shown = " ".join(texts(figure))
    for name in ("Raster", "RAR", "PAR", "LPD", "LPD random order", "ARPG", "Real images", "Reconstructions"):
        assert name in shown
    for part in (
        "device cpu",
        "float32",
        "batch 64",
        "N = 1000",
        "fashion-train",
        "95 % intervals",
        "Pareto",
    ):
        assert part in shown
    assert not overlapping(figure)
    assert figure.axes[0].get_legend() is None


def test_curves_that_differ_in_guidance_share_a_name(facet: Facet) -> None:
    """Three scales of every cell: one name each; points of one step count are told apart by scale."""

    def at(row: Row, scale: float) -> Row:
        fast = (row.throughput_images_per_s or 0) * scale**0.1
        cell = f"{row.cell[2:]}{round(10 * scale)}"
        return dataclasses.replace(row, cell=cell, guidance=scale, throughput_images_per_s=fast)

    cells = facet.cells
    varied = [*facet.anchors, *(at(row, scale) for row in cells for scale in (1.5, 2.0, 3.0))]
    figure = plots.quality_against_throughput(facets(varied)[0], METRIC)
    assert figure is not None
    shown = texts(figure)
    for name in ("Raster", "RAR", "PAR", "LPD", "LPD random order", "ARPG"):
        assert sum(text.startswith(f"{name}, ") for text in shown) == 1, name
    assert not any("(guidance" in text for text in shown)
    assert any(text == "guidance 2" for text in shown)
    assert any("differ in guidance" in " ".join(text.split()) for text in shown)


def test_a_cell_without_guidance_beside_guided_ones_is_named(facet: Facet) -> None:
    guided = next(row for row in facet.cells if row.strategy == "par")
    cell = f"{guided.cell[2:]}00"
    better = {METRIC: {**(guided.quality or {})[METRIC], "value": 5.0, "low": 4.5, "high": 5.5}}
    free = dataclasses.replace(
        guided, cell=cell, guidance=None, quality=better
    )  # the worse one bears the name
    figure = plots.quality_against_throughput(facets([guided, free])[0], METRIC)
    assert figure is not None
    assert "no guidance" in texts(figure)


def test_error_bars_span_the_intervals(facet: Facet) -> None:
    figure = plots.quality_against_throughput(facet, METRIC)
    assert figure is not None
    for container, one in zip(figure.axes[0].containers, plots.series(facet), strict=True):
        line, _, (across, up) = container.lines
        entries = [(row.quality or {})[METRIC] for row in one.rows]
        rates = [row.throughput_images_per_s for row in one.rows]
        assert line.get_xydata() == pytest.approx(
            np.array([(rate, entry["value"]) for rate, entry in zip(rates, entries, strict=True)])
        )
        spans = [bar[:, 0] for bar in across.get_segments()], [bar[:, 1] for bar in up.get_segments()]
        assert np.array(spans[0]) == pytest.approx(np.array([row.throughput_interval for row in one.rows]))
        assert np.array(spans[1]) == pytest.approx(np.array([(e["low"], e["high"]) for e in entries]))


@pytest.mark.parametrize("metric", [METRIC, "accuracy@1000"])
@pytest.mark.parametrize("draw", [plots.quality_against_throughput, plots.quality_against_steps])
def test_intervals_end_inside_the_frame(facet: Facet, metric: str, draw: object) -> None:
    """Wide ones too, but for what reaches below a third of the least value of a logarithmic axis."""

    def widened(row: Row) -> Row:
        entry = (row.quality or {})[metric]
        span = {"low": entry["value"] - 5, "high": entry["value"] + 5}
        return dataclasses.replace(row, quality=dict(row.quality or {}) | {metric: dict(entry) | span})

    wide = Facet(facet.keys, tuple(widened(row) if row.status == "ok" else row for row in facet.rows))
    figure = draw(wide, metric)  # type: ignore[operator]
    low, high = figure.axes[0].get_ylim()
    entries = [(row.quality or {})[metric] for row in wide.cells if row.status == "ok"]
    assert max(entry["high"] for entry in entries) < high
    least = min(entry["low"] for entry in entries)
    assert low < (least if figure.axes[0].get_yscale() == "linear" else max(least, 3.0))


def test_intervals_of_speed_end_inside_the_frame(facet: Facet) -> None:
    rates = [row.throughput_images_per_s for row in facet.cells if row.status == "ok"]
    slow = min(rate for rate in rates if rate)

    def widened(row: Row) -> Row:
        wide = row.throughput_images_per_s == slow
        return dataclasses.replace(row, throughput_interval=[slow / 2, slow * 1.2]) if wide else row

    figure = plots.quality_against_throughput(Facet(facet.keys, tuple(map(widened, facet.rows))), METRIC)
    assert figure is not None
    assert figure.axes[0].get_xlim()[0] < slow / 2


def test_no_text_leaves_the_paper_of_a_file(facet: Facet, tmp_path: Path) -> None:
    """The caption is the widest: its last letters once lay outside."""
    figure = plots.memory_against_batch(facet)
    assert figure is not None
    with Image.open(plots.save_figure(figure, tmp_path, "memory")) as image:
        grey = np.asarray(image.convert("L"))
    rim = 8
    for edge in (grey[:rim], grey[-rim:], grey[:, :rim], grey[:, -rim:]):
        assert edge.min() > 250


def test_memory_at_one_batch_takes_little_room(facet: Facet) -> None:
    """On a narrow page the points of a wide figure would lie out of sight."""

    def alone(row: Row) -> Row:
        return dataclasses.replace(row, peak_bytes_by_batch={"64": 1e8})

    many = plots.memory_against_batch(facet)
    one = plots.memory_against_batch(Facet(facet.keys, tuple(map(alone, facet.cells))))
    assert many is not None
    assert one is not None
    assert one.get_figwidth() < 0.6 * many.get_figwidth()
    assert not overlapping(one)


def test_memory_names_each_series(facet: Facet) -> None:
    figure = plots.memory_against_batch(facet)
    assert figure is not None
    assert {"Raster", "LPD, 10 steps", "LPD random order"} <= set(texts(figure))
    assert not overlapping(figure)


def test_nothing_measured_gives_no_figure(facet: Facet) -> None:
    bare = Facet(facet.keys, tuple(row for row in facet.rows if row.status != "ok" or row.tier == "anchor"))
    assert plots.quality_against_throughput(bare, METRIC) is None
    assert plots.quality_against_steps(bare, METRIC) is None
    assert plots.memory_against_batch(bare) is None
    assert pictures.sample_grid(bare, {}) is None
    assert pictures.order_maps(bare, {}) is None
    assert pictures.film_strip(bare, {}) is None


def test_a_single_cell_without_intervals_is_drawn(facet: Facet) -> None:
    row = facet.cells[0]
    quality = {METRIC: dict(row.quality[METRIC]) | {"low": None, "high": None}}  # type: ignore[index]
    why = {f"quality.{METRIC}": "one group", "throughput_interval": "one repeat"}
    one = dataclasses.replace(row, quality=quality, throughput_interval=None, unmeasured=row.unmeasured | why)
    assert plots.quality_against_throughput(Facet(facet.keys, (one,)), METRIC) is not None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
)
def test_the_pareto_front_is_what_nothing_beats(
    points: list[tuple[int, int]], more_x: bool, more_y: bool
) -> None:
    x, y = np.array(points, float).T
    front = plots.pareto_front(x, y, more_x, more_y)
    gx, gy = (x if more_x else -x), (y if more_y else -y)
    for i in range(len(points)):
        beaten = any(
            gx[j] >= gx[i] and gy[j] >= gy[i] and (gx[j] > gx[i] or gy[j] > gy[i]) for j in range(len(points))
        )
        assert (i in front) is not beaten
    assert (np.diff(x[front]) >= 0).all()


def test_sample_grid_shows_the_same_classes_for_all(facet: Facet, artifacts: dict[str, Artifacts]) -> None:
    figure = pictures.sample_grid(facet, artifacts)
    assert figure is not None
    assert len(figure.axes[0].images) == 10 * sum(row.status == "ok" for row in facet.rows)
    assert [text for text in texts(figure) if text in FASHION_CLASSES] == list(FASHION_CLASSES)
    assert "LPD random order\n10 steps" in texts(figure)


def test_shuffled_classes_are_matched(facet: Facet) -> None:
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    one, two = facet.cells[:2]
    given_artifacts = {
        result_key(one): Artifacts(samples=images, classes=np.array([5, 6, 7])),
        result_key(two): Artifacts(samples=images, classes=np.array([7, 5, 8])),
    }
    figure = pictures.sample_grid(facet, given_artifacts)
    assert figure is not None
    shown = [int(np.asarray(image.get_array()).flat[0]) for image in figure.axes[0].images]
    assert shown == [0, 2, 1, 0]


def test_long_names_of_samples_keep_apart(facet: Facet) -> None:
    images, classes = np.zeros((1, 4, 4, 3), np.uint8), np.array([5])
    long = [dataclasses.replace(row, label="A name of " + "several words " * 5) for row in facet.cells[:3]]
    shown = dataclasses.replace(facet, rows=long)
    figure = pictures.sample_grid(
        shown, {result_key(row): Artifacts(samples=images, classes=classes) for row in long}
    )
    assert figure is not None
    figure.draw_without_rendering()
    page = figure.axes[0]
    names = [one.get_window_extent() for one in page.texts if one.get_text().startswith("A name")]
    assert len(names) == 3
    assert all(below.y1 < above.y0 for above, below in itertools.pairwise(names))
    for name, image in zip(names, page.images, strict=True):
        assert image.get_window_extent().y0 < (name.y0 + name.y1) / 2 < image.get_window_extent().y1


def test_order_maps_number_the_steps(facet: Facet, artifacts: dict[str, Artifacts]) -> None:
    figure = pictures.order_maps(facet, artifacts)
    assert figure is not None
    raster = figure.axes[0]
    assert raster.get_title(loc="center") == "Raster\n64 steps"
    assert [text.get_text() for text in raster.texts] == [str(step) for step in range(1, 65)]


def test_cells_that_write_in_the_same_order_share_a_map(
    facet: Facet, artifacts: dict[str, Artifacts]
) -> None:
    (raster,) = [row for row in facet.rows if row.strategy == "raster"]
    guided, reversed_ = (
        dataclasses.replace(raster, cell=f"{at:02d}" * 8, guidance=7.5 + at) for at in range(2)
    )
    order = artifacts[result_key(raster)].step_of_position
    assert order is not None
    artifacts[result_key(guided)] = Artifacts(step_of_position=order.copy())
    one_more = dataclasses.replace(facet, rows=(*facet.rows, guided))
    panels = len(order_titles(facet, artifacts))
    assert order_titles(one_more, artifacts).count("Raster\n64 steps") == 1
    assert len(order_titles(one_more, artifacts)) == panels
    artifacts[result_key(reversed_)] = Artifacts(step_of_position=order[::-1])
    two_more = dataclasses.replace(facet, rows=(*facet.rows, guided, reversed_))
    assert len(order_titles(two_more, artifacts)) == panels + 1
    assert sum(title.startswith("Raster (guidance") for title in order_titles(two_more, artifacts)) == 2


def order_titles(facet: Facet, artifacts: dict[str, Artifacts]) -> list[str]:
    figure = pictures.order_maps(facet, artifacts)
    assert figure is not None
    return [axes.get_title(loc="center") for axes in figure.axes if axes.images]


def test_film_names_its_steps(facet: Facet, artifacts: dict[str, Artifacts]) -> None:
    figure = pictures.film_strip(facet, artifacts)
    assert figure is not None
    titles = [text for text in texts(figure) if text.startswith("step ")]
    assert titles[:2] == ["step 1", "step 8"]
    assert titles[9] == "step 64"


def test_the_film_of_an_image_at_its_own_pace_names_that_images_steps(facet: Facet) -> None:
    """Ten steps for the first image, twelve on average."""
    row = dataclasses.replace(facet.cells[0], steps=12.0, steps_least=10, steps_most=14)
    own = np.arange(16).reshape(1, 4, 4) * 10 // 16
    film = np.zeros((15, 4, 4, 3), np.uint8)  # until the slowest image is done
    stored = Artifacts(film=film, steps_of_images=own)
    figure = pictures.film_strip(dataclasses.replace(facet, rows=(row,)), {result_key(row): stored})
    assert figure is not None
    heads = [text for text in texts(figure) if text == "start" or text.startswith("step ")]
    assert (heads[0], heads[1], heads[-1]) == ("start", "step 1", "step 10")


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04broken"])
def test_unreadable_artifacts_are_a_problem_not_an_error(
    tmp_path: Path, rows: Sequence[Row], content: bytes
) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    found = load_artifacts(dataclasses.replace(rows[2], artifacts={"trace": "a.npz"}), tmp_path)
    assert found.samples is None
    assert found.problems[0].startswith("a.npz can't be read")


def test_missing_artifacts_and_wrong_shapes_are_named(tmp_path: Path, rows: Sequence[Row]) -> None:
    np.savez(tmp_path / "a.npz", samples=np.zeros(3), classes=np.zeros(3, int))
    row = dataclasses.replace(rows[2], artifacts={"trace": "gone.npz", "samples": "a.npz"})
    found = load_artifacts(row, tmp_path)
    assert found.problems == ("gone.npz is missing", "samples has shape [3] of float64")
    assert found.classes is not None
    np.savez(tmp_path / "a.npz", samples=np.zeros((2, 8, 8, 3), np.uint8), classes=np.zeros(3, int))
    found = load_artifacts(row, tmp_path)
    assert found.classes is None
    assert found.problems == ("gone.npz is missing", "3 classes of 2 samples")


def test_a_cell_that_failed_before_it_knew_its_card_stands_in_no_way(facet: Facet) -> None:
    gpu = {"environment": (facet.cells[0].environment or {}) | {"gpu": "NVIDIA H200"}, "device": "cuda"}
    ok = [dataclasses.replace(row, **gpu) for row in facet.rows if row.status == "ok"]
    (skipped,) = [row for row in facet.rows if row.status != "ok"]
    nowhere = gpu["environment"] | {"gpu": None}
    cells = [*ok, dataclasses.replace(skipped, device="cuda", status="skipped", environment=nowhere)]
    (whole,) = facets(cells)
    assert len(whole.rows) == len(cells)
    assert plots.quality_against_throughput(whole, METRIC) is not None


def test_every_anchor_of_a_sweep_is_known_to_the_pictures() -> None:
    assert {name: title for name, (title, _) in style.ANCHORS.items()} == ANCHORS


def linear(colour: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


# Viénot, Brettel and Mollon (1999): linear RGB as seen without the long or the middle cones.
BLIND = {
    "none": np.eye(3),
    "protan": np.array([[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.0040, -0.0040, 1.0]]),
    "deutan": np.array([[0.2928, 0.7072, 0.0], [0.2928, 0.7072, 0.0], [-0.0223, 0.0223, 1.0]]),
}


@pytest.mark.parametrize("sight", BLIND)
def test_the_strategies_of_the_zoo_stay_apart_for_every_eye(sight: str) -> None:
    seen = {name: np.cbrt(np.clip(BLIND[sight] @ linear(style.colour(name)), 0, 1)) for name in MAIN}
    for a, b in itertools.combinations(MAIN, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 0.1, (sight, a, b)


def test_colours_are_distinct_legible_and_stable() -> None:
    colours, markers = zip(*style.PALETTE, strict=True)
    assert len(set(colours)) == len(set(style.DARK)) == len(style.PALETTE) == len(style.DARK)
    assert len(set(markers[:13])) == 13
    for (one, mark), (two, other) in itertools.combinations(style.PALETTE, 2):
        if mark == other:
            assert np.linalg.norm(np.cbrt(linear(one)) - np.cbrt(linear(two))) > 0.25, (one, two)
    for name in (*MAIN, "a plug-in", "another"):
        luminance = linear(style.colour(name)) @ np.array([0.2126, 0.7152, 0.0722])
        assert 1.05 / (luminance + 0.05) > 2.5, name
    assert style.colour("a plug-in") == style.colour("a plug-in") != style.colour("another")
    assert [style.marker(name) for name in MAIN] == list(markers[: len(MAIN)])


def test_every_strategy_that_ships_has_a_colour_of_the_palette() -> None:
    assert len(style.PALETTE) >= len(registry.BUILT_IN)


@pytest.mark.parametrize("scheme", [style.FILE, style.NIGHT])
def test_letters_have_more_contrast_than_marks(scheme: style.Scheme) -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])

    def contrast(colour: str) -> float:
        low, high = sorted(linear(one) @ weights + 0.05 for one in (colour, scheme.paper))
        return float(high / low)

    with style.drawn_for(scheme):
        for name in registry.BUILT_IN:
            colour = style.colour(name)
            letters = style.lettering(colour)
            assert contrast(colour) > 2.9, name
            assert contrast(letters) > max(4, contrast(colour)), name


def test_colours_follow_the_order_of_introduction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "_titles", {})
    style.introduce({"spiral": "Spiral", "raster": "Raster"})
    first, second = style.PALETTE[:2]
    assert [(style.colour(name), style.marker(name)) for name in ("spiral", "raster")] == [first, second]
    assert (style.title("spiral"), style.title("lpd")) == ("Spiral", "lpd")
    names = ["lpd", "raster", "reconstruction", "spiral", "real"]
    assert sorted(names, key=style.rank) == ["real", "reconstruction", "spiral", "raster", "lpd"]


def test_saved_figures_are_png_svg_and_pdf(facet: Facet, tmp_path: Path) -> None:
    figure = plots.memory_against_batch(facet)
    assert figure is not None
    png = plots.save_figure(figure, tmp_path / "figures", "memory")
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "</svg>" in png.with_suffix(".svg").read_text()
    assert png.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
    assert not plt.get_fignums()


def test_memory_points_and_anchor_lines():
    (facet,) = facets(sweep_rows())
    drawn = plots.memory_against_batch(facet).axes[0].lines
    for one, line in zip(plots.series(facet), drawn, strict=False):
        peaks = {int(b): v / 1e6 for b, v in one.rows[0].peak_bytes_by_batch.items()}
        assert dict(line.get_xydata().tolist()) == pytest.approx(peaks)
    axes = plots.quality_against_steps(facet, METRIC).axes[0]
    levels = {
        line.get_ydata()[0]
        for line in axes.lines
        if line.get_linestyle() == "--" and len(set(line.get_ydata())) == 1
    }
    assert {row.quality[METRIC]["value"] for row in facet.anchors} <= levels
