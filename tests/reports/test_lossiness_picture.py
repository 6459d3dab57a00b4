"""The picture of bits lost: a panel for each judge, nothing drawn where nothing is lost."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from reports.artifacts import Artifacts, load_artifacts
from reports.frame import facets
from reports.lossiness import curves
from results.environments import result_key
from results.schema import Row
from results.store import load_rows


def test_each_network_judges_in_a_panel_of_its_own(sweep: Path) -> None:
    (facet,) = facets(load_rows(sweep))
    figure = curves(facet, {result_key(row): load_artifacts(row, sweep) for row in facet.rows})
    assert figure is not None
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") or axes.get_title() for axes in panels] == [
        f"judged by zoo/{name}" for name in ("par", "lpd", "arpg")
    ]
    under = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
    assert "lost nothing: Raster, 64 steps; RAR, 64 steps" in under
    names = [text.get_text() for text in panels[1].texts]
    assert sorted(names) == ["LPD random order, 10 steps", "LPD, 10 steps", "LPD, 20 steps"]
    ends = {
        len(line.get_xdata()): line.get_ydata()[-1] for line in panels[2].lines if len(line.get_xdata()) > 2
    }
    assert ends[8] == pytest.approx(8.0, rel=0.05)
    plt.close(figure)


def test_without_losses_there_is_no_picture(rows: Sequence[Row]) -> None:
    (facet,) = facets(rows)
    assert curves(facet, {}) is None
    nothing = Artifacts(lossiness_bits=np.zeros((5, 4), np.float32))
    assert curves(facet, dict.fromkeys((result_key(row) for row in facet.rows), nothing)) is None


def test_other_temperatures_are_another_panel(rows: Sequence[Row]) -> None:
    lpd = [row for row in rows if row.strategy == "lpd"]
    warm = [dataclasses.replace(row, temperature=2.0, cell=f"{i:016x}") for i, row in enumerate(lpd, 500)]
    (facet,) = facets([*lpd, *warm])
    bits = Artifacts(lossiness_bits=np.ones((5, 4), np.float32))
    figure = curves(facet, {result_key(row): bits for row in facet.rows})
    assert figure is not None
    assert sum(axes.get_visible() for axes in figure.axes) == 2
    plt.close(figure)
