"""Pictures of speculative decoders: steps and speed against the window, and where drafts are accepted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from reports.artifacts import Artifacts
from reports.drawings import drawings
from reports.frame import facets
from reports.windows import acceptance_maps, against_window, families, maps_of
from results.environments import result_key
from results.same_setting import is_without
from results.schema import RANDOM_WEIGHTS, Row
from tests.reports.synthetic_rows import cell_row


def speculative(
    index: int, strategy: str, window: int, steps: float, speeds: dict[str, float], **more
) -> Row:
    made = cell_row(index, strategy, f"{strategy} (window {window})", 64, {}, 0.1, 50.0)
    values = {"options": {"window": window}, "throughput_by_batch": speeds, "steps": steps, "steps_bound": 64}
    return dataclasses.replace(made, **{**values, **more})


@pytest.fixture
def rows() -> list[Row]:
    return [
        speculative(900, "sjd", 4, 40.5, {"1": 3.0, "64": 50.0}),
        speculative(901, "sjd", 8, 33.0, {"1": 4.0, "64": 40.0}),
        speculative(902, "sjd", 16, 31.0, {"1": 3.5, "64": 30.0}),
        speculative(903, "jacobi", 4, 55.0, {"1": 2.0, "64": 35.0}),
        speculative(904, "jacobi", 8, 54.0, {"1": 1.9, "64": 25.0}),
        speculative(905, "gsd", 4, 30.0, {"1": 4.0, "64": 51.0}),
    ]


def test_a_line_for_every_strategy_of_several_windows(rows: list[Row]) -> None:
    (facet,) = facets(rows)
    assert sorted((one.rows[0].strategy, len(one.rows)) for one in families(facet)) == [
        ("jacobi", 2),
        ("sjd", 3),
    ]
    figure = against_window(facet)
    assert figure is not None
    steps, alone, together = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "steps of an image",
        "images/s at batch 1",
        "images/s at batch 64",
    ]
    drawn = {tuple(line.get_ydata()) for line in steps.lines}
    assert {(40.5, 33.0, 31.0), (31.0,), (55.0, 54.0), (54.0,)} <= drawn
    assert (4.0,) in {tuple(line.get_ydata()) for line in alone.lines}, "the fastest window is marked"
    assert (50.0,) in {tuple(line.get_ydata()) for line in together.lines}
    plt.close(figure)


def test_a_window_left_to_measurement_is_on_no_line(rows: list[Row]) -> None:
    auto = dataclasses.replace(rows[0], cell="f" * 16, options={"window": "auto"})
    (facet,) = facets([*rows, auto])
    assert sorted(len(one.rows) for one in families(facet)) == [2, 3]
    maps = np.ones((8, 8))
    found = maps_of(
        facet, {result_key(row): Artifacts(drafts_tested=maps, drafts_accepted=maps) for row in (*rows, auto)}
    )
    assert len(found) == len(rows) + 1


def test_a_line_has_one_setting_but_for_the_window(rows: list[Row]) -> None:
    cool = [
        dataclasses.replace(row, cell=f"{at:016x}", temperature=0.7) for at, row in enumerate(rows[:3], 500)
    ]
    (facet,) = facets([*rows, *cool])
    windows = [[row.options["window"] for row in one.rows] for one in families(facet)]
    assert sorted(windows) == [[4, 8], [4, 8, 16], [4, 8, 16]]


def test_random_weights_are_one_network_by_its_name(rows: list[Row]) -> None:
    varied = dataclasses.replace(rows[0], checkpoint=RANDOM_WEIGHTS, network="llamagen-l-256")
    bare = dataclasses.replace(varied, options={}, strategy="raster", steps_bound=None)
    assert is_without(bare, varied)
    assert not is_without(dataclasses.replace(bare, network="llamagen-xl-256"), varied)


def test_the_network_without_a_window_is_a_level_in_every_panel(rows: list[Row]) -> None:
    bare = {"options": {}, "steps_bound": None, "label": "Raster"}
    raster = speculative(906, "raster", 0, 64.0, {"1": 2.5, "64": 60.0}, **bare)
    other = dataclasses.replace(raster, cell="0" * 16, checkpoint="0" * 64)
    (facet,) = facets([*rows, raster, other])
    figure = against_window(facet)
    assert figure is not None
    levels = [
        [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] for axes in figure.axes
    ]
    assert levels == [[64.0], [2.5], [60.0]]
    assert all("Raster" in [text.get_text() for text in axes.texts] for axes in figure.axes)
    plt.close(figure)


def test_declared_steps_are_not_drawn(rows: list[Row]) -> None:
    settings = {"acceptance": 0.7, "steps": None}
    declared = [dataclasses.replace(row, acceptance=0.7, settings=settings) for row in rows]
    (facet,) = facets(declared)
    figure = against_window(facet)
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes] == ["images/s at batch 1", "images/s at batch 64"]
    plt.close(figure)


def test_other_devices_are_asked_where_windows_hold_drafts(rows: list[Row]) -> None:
    """A window that rows wait for takes more steps the larger it is; of drafts it takes fewer."""
    waiting = [speculative(910 + at, "zipar", 4 * 2**at, 20.0 + at, {"1": 3.0}) for at in range(2)]
    for given, asked in ((rows, True), (waiting, False), ([*rows, *waiting], True)):
        (facet,) = facets(given)
        names = {one.name for one in drawings(facet, {}, {}, {})}
        assert "windows" in names
        assert ("windows-on-cards" in names) is asked


def test_one_window_alone_is_no_curve(rows: list[Row]) -> None:
    (facet,) = facets(rows[:1])
    assert against_window(facet) is None


def test_maps_show_the_share_of_passed_tests(rows: list[Row]) -> None:
    (facet,) = facets(rows[:2])
    tested = np.array([[0, 4], [10, 8]])
    maps = Artifacts(drafts_tested=tested, drafts_accepted=np.array([[0, 1], [5, 8]]))
    beside = {result_key(rows[0]): maps}
    assert [row.cell for row, *_ in maps_of(facet, beside)] == [rows[0].cell]
    figure = acceptance_maps(facet, beside)
    assert figure is not None
    shown = figure.axes[0].images[0].get_array()
    assert np.ma.getmaskarray(shown)[0, 0] or np.isnan(shown[0, 0])
    assert np.asarray(shown)[[0, 1, 1], [1, 0, 1]] == pytest.approx([0.25, 0.5, 1.0])
    assert "0.64 accepted" in figure.axes[0].get_title()
    plt.close(figure)
    assert acceptance_maps(facet, {}) is None


def test_a_declared_acceptance_has_no_map(rows: list[Row], tmp_path: Path) -> None:
    declared = dataclasses.replace(rows[0], acceptance=0.7, settings={"acceptance": 0.7, "steps": None})
    (facet,) = facets([declared])
    maps = Artifacts(drafts_tested=np.ones((2, 2)), drafts_accepted=np.ones((2, 2)))
    assert acceptance_maps(facet, {result_key(declared): maps}) is None
