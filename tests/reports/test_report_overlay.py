"""Published points in the pictures: only under the same conditions, visibly other than measured ones."""

from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text
from synthetic_rows import A800, N_PUBLISHED, metric, quality_row

from reports import overlay, plots, style
from reports.frame import facets

FID = f"fid@{N_PUBLISHED}"


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def arpg_row(**changes):
    """ARPG-L in 32 steps on an A800: its paper prints FID 2.3 at 130.14 images/s."""
    fast = {
        "strategy": "arpg",
        "label": "ARPG-L",
        "network": "arpg-l",
        "steps": 32,
        "guidance": 5.4,
        "guidance_schedule": "linear",
        "device": "cuda",
        "environment": A800,
        "dtype": "bfloat16",
        "batch": 64,
        "throughput_images_per_s": 120.0,
        "throughput_interval": [118.0, 122.0],
        "quality": {FID: metric(2.4, 0.03, N_PUBLISHED)},
    }
    return quality_row(**fast | changes)


def points(row, over_throughput):
    return {
        (point.name, point.x, point.y)
        for point in overlay.published_points(facets([row])[0], FID, over_throughput)
    }


def test_the_papers_points_of_the_same_network_stand_beside_it():
    over_steps = points(arpg_row(), over_throughput=False)
    assert over_steps == {("ARPG-L", 32.0, 2.3), ("ARPG-L", 64.0, 2.37), ("ARPG-L", 64.0, 2.44)}
    assert points(arpg_row(), over_throughput=True) == {
        ("ARPG-L, 32 steps", 130.14, 2.3),
        ("ARPG-L, 64 steps", 67.47, 2.37),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cpu"},
        {"environment": A800 | {"gpu": "NVIDIA A100-SXM4-80GB"}},
        {"batch": 32},
        {"dtype": "float32"},
        {"phases_s": {"detokenize": 0.2}},
    ],
)
def test_speed_is_never_merged_across_machines(changes):
    assert points(arpg_row(**changes), over_throughput=True) == set()
    assert len(points(arpg_row(**changes), over_throughput=False)) == 3, "steps have no machine"


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 1000},
        {"network": "arpg-none"},
        {"reference": {"name": "other", "sha256": "ab" * 32, "n": 10_000}},
        {"reference": None},
        {"protocol": None},
    ],
)
def test_quality_needs_the_same_conditions(changes):
    assert points(arpg_row(**changes), over_throughput=False) == set()


def test_metrics_that_no_paper_prints_have_no_points():
    assert overlay.published_points(facets([arpg_row()])[0], "fd_fashion@1000", False) == []


@pytest.mark.parametrize("draw", [plots.quality_against_throughput, plots.quality_against_steps])
def test_they_are_drawn_as_hollow_stars_and_named(draw, tmp_path: Path):
    figure = draw(facets([arpg_row()])[0], FID)
    assert figure is not None
    plots.save_figure(figure, tmp_path, "picture")
    stars = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    over_steps = draw is plots.quality_against_steps
    assert sorted(float(line.get_xdata()[0]) for line in stars) == (
        [32.0, 64.0, 64.0] if over_steps else [67.47, 130.14]
    )
    assert all(
        line.get_markerfacecolor() == style.FILE.paper and line.get_linestyle() == "None" for line in stars
    )
    left, right = figure.axes[0].get_xlim()
    assert all(left < line.get_xdata()[0] < right for line in stars)
    shown = [text.get_text() for text in figure.findobj(Text)]
    assert ("ARPG-L, paper" if over_steps else "ARPG-L, 64 steps, paper") in shown
    assert any(overlay.NOTE in text for text in shown)


def test_without_them_no_star_is_explained():
    figure = plots.quality_against_steps(facets([arpg_row(images=1000)])[0], FID)
    assert figure is not None
    assert not any("stars" in text.get_text() for text in figure.findobj(Text))
