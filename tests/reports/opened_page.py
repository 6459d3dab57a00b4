"""A report's page of synthetic rows, opened in the browser: whatever it complains of fails the test."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from reports import plots, site, style
from reports.drawings import Drawing
from reports.site import write_report
from results.schema import Row
from results.store import ResultStore
from tests.reports.synthetic_rows import anchor_rows, arrays, cell_row, failed_row, quality_row, replicates

HOSTILE = '<img src=x onerror="window.hit=1"> ${1} </script><b>\''
CELLS = [
    ("raster", "Raster", 64, {}, 9.8, 61.0),
    ("par", "PAR", 19, {}, 9.9, 166.0),
    ("lpd", "LPD", 20, {}, 11.8, 171.0),
    ("lpd", "LPD", 10, {}, 13.1, 324.0),
    ("lpd", HOSTILE, 10, {"order": HOSTILE}, 24.4, 331.0),
    ("sjd", "SJD", 32, {}, 9.7, 70.0),
    ("sjd", "SJD", 16, {}, 12.5, 150.0),
]


def rows_of_the_page() -> list[Row]:
    cells = [cell_row(at, *cell) for at, cell in enumerate(CELLS)]
    second = [
        dataclasses.replace(cell_row(at + 20, *cell), dtype="bfloat16") for at, cell in enumerate(CELLS[:3])
    ]
    papers = quality_row(cell=f"{50:016x}", throughput_images_per_s=7.0, throughput_interval=[6.0, 8.0])
    rows = [*anchor_rows(), *cells, *second, papers]
    rows = [dataclasses.replace(row, quality_replicates=replicates(row)) for row in rows]
    reason = f"out of memory {HOSTILE}"
    return [*rows, dataclasses.replace(failed_row(), reason=reason)]


def stored(row: Row) -> dict[str, np.ndarray]:
    """Ten images each with an order of its own; SJD drew in vain at every tenth step."""
    found = {name: array for name, array in arrays(row).items() if name != "film"}
    if row.tier != "anchor":
        rng = np.random.default_rng(int(row.cell, 16))
        steps = int(row.steps or 1)
        orders = [(rng.permutation(64) * steps // 64).reshape(8, 8) for _ in range(10)]
        found["steps_of_images"] = np.array(orders, np.int16)
        lost = [(image, step, 60) for image in range(10) for step in range(0, steps, 10)]
        found["lost_draws"] = np.array(lost if row.strategy == "sjd" else np.zeros((0, 3)), np.int16)
    return found


def a_drawing(name: str, title: str) -> Drawing:
    def draw() -> Figure:
        figure = Figure(figsize=(4, 1), facecolor=style.scheme().paper)
        figure.add_axes((0, 0, 1, 1))
        figure.text(0.1, 0.5, title)
        return figure

    return Drawing(name, title, f"What {title} shows.", draw)


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    store = ResultStore(folder)
    for row in rows_of_the_page():
        if row.status == "ok" and row.tier != "published":
            path = store.artifact(row.cell)
            np.savez_compressed(path, **stored(row))
            row = dataclasses.replace(
                row, artifacts=dict.fromkeys(("trace", "samples"), store.relative(path))
            )
        store.append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "drawings", lambda *_: [a_drawing("one", "First"), a_drawing("two", "Second")])
        patch.setattr(plots, "FORMATS", {"png": None})
        return write_report(folder)


Open = Callable[..., Any]


@pytest.fixture
def opened(report: Path, browser: Any) -> Iterator[Open]:
    """Opens the page; whatever it complains of, or asks of a network, fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(width: int = 1280, path: Path = report, **look: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **look)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("data:", "file:")) else complaints.append(asked.url),
        )
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def shown(page: Any, selector: str) -> int:
    return page.locator(f"{selector}:visible").count()


def points(page: Any, name: str = "") -> Any:
    """The picture's points, or the one whose cell's name begins so."""
    return page.locator(
        f"#picture-0 [data-point][aria-label^='{name}']" if name else "#picture-0 [data-point]"
    )
