"""Columns that say nothing, or the same of every row, are left out; one row that differs brings them back."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reports import grid
from reports.compare import print_text_tables
from reports.contests import TextTable
from reports.fitting import DASH, told_columns
from reports.frame import Facet, facets
from reports.points import facet_points
from reports.site import write_report
from reports.tables import ReportTable, cost_table, quality_table
from results.schema import Row
from results.store import ResultStore
from tests.reports.synthetic_rows import cell_row, failed_row

CELLS = [("raster", "Raster", 64, {}, 9.8, 61.0), ("par", "PAR", 19, {}, 12.9, 166.0)]


def cells(**changes: Any) -> list[Row]:
    """Two cells in which every optional column has something, but for what ``changes`` makes of both."""
    rows = [cell_row(at, *cell) for at, cell in enumerate(CELLS)]  # type: ignore[arg-type]
    missing = {name: "not asked for" for name, value in changes.items() if value is None}
    return [dataclasses.replace(row, unmeasured=row.unmeasured | missing, **changes) for row in rows]


def headings(rows: list[Row], table: Any) -> list[str]:
    (facet,) = facets(rows)
    made: ReportTable = table(facet)
    assert all(len(entries) == len(made.columns) for entries in made.entries)
    return [column.heading for column in made.columns]


@pytest.mark.parametrize(
    ("heading", "empty", "table"),
    [
        ("guidance", {"guidance": None}, quality_table),
        ("bits lost", {"lossiness_bits": None}, quality_table),
        ("cache MB", {"cache_bytes": None}, cost_table),
        ("peak MB", {"peak_bytes": None}, cost_table),
        ("latency ms", {"latency_s": None, "latency_interval_s": None}, cost_table),
        ("images/s", {"throughput_images_per_s": None, "throughput_interval": None}, cost_table),
    ],
)
def test_a_column_without_a_value_comes_back_with_the_first(
    heading: str, empty: dict[str, None], table: Any
) -> None:
    full, bare = cells(), cells(**empty)
    assert heading in headings(full, table)
    assert heading not in headings(bare, table)
    assert heading in headings([bare[0], full[1]], table)


def test_a_metric_that_no_row_has_is_neither_a_column_nor_a_choice_of_the_picture() -> None:
    name = "kid_fashion@1000"
    untold = {"value": None, "low": None, "high": None, "n": 1000, "reference": "fashion-train"}
    full = cells()
    why = {f"quality.{name}": "too few images"}
    bare = [
        dataclasses.replace(
            row, quality=dict(row.quality or {}) | {name: untold}, unmeasured=row.unmeasured | why
        )
        for row in full
    ]

    def choices(rows: list[Row]) -> list[str]:
        (facet,) = facets(rows)
        return [one["name"] for one in facet_points(facet, {}, ["raster", "par"])["metrics"]]

    for shown in (lambda rows: headings(rows, quality_table), choices):
        assert name in shown(full)
        assert name not in shown(bare)
        assert name in shown([bare[0], full[1]])


def test_the_best_speed_is_a_column_where_another_batch_has_it() -> None:
    full = cells()
    own = [
        dataclasses.replace(
            row, throughput_best_batch=row.batch, throughput_best_images_per_s=row.throughput_images_per_s
        )
        for row in full
    ]
    other = dataclasses.replace(own[1], throughput_best_batch=128, throughput_best_images_per_s=400.0)
    assert "best images/s" not in headings(own, cost_table)
    assert "best images/s" in headings([own[0], other], cost_table)


@pytest.mark.parametrize("table", [quality_table, cost_table])
def test_the_status_is_a_column_where_one_is_not_ok(table: Any) -> None:
    assert "status" not in headings(cells(), table)
    (facet,) = facets(cells())
    joined = Facet(facet.keys, (*facet.rows, failed_row()))
    assert table(joined).columns[-1].heading == "status"
    assert [entries[-1].text.partition(":")[0] for entries in table(joined).entries] == ["ok", "ok", "oom"]


TEXTS = TextTable(
    "Title",
    ("cell", "difference", "training seeds", "remarks"),
    (("a", "1", DASH, ""), ("b", DASH, DASH, "")),
    "note",
)


def test_tables_of_texts_leave_out_columns_that_say_nothing() -> None:
    assert told_columns(TEXTS.headings, TEXTS.lines) == (("cell", "difference"), (("a", "1"), ("b", DASH)))
    told = dataclasses.replace(TEXTS, lines=(TEXTS.lines[0], ("b", DASH, "± 0.5", "")))
    assert told_columns(told.headings, told.lines)[0] == ("cell", "difference", "training seeds")
    nameless = (("", DASH), (DASH, "1"))
    assert told_columns(("cell", "value"), nameless) == (("cell", "value"), nameless)
    for table, expected in ((TEXTS, 2), (told, 3)):
        on_page = grid.of_contest(table)
        assert len(on_page.headings) == len(on_page.numeric) == expected
        assert {len(line.cells) for line in on_page.lines} == {expected}
        console = Console(record=True, width=200)
        print_text_tables([table], console)
        assert ("training seeds" in console.export_text()) == (expected == 3)


def test_markdown_has_the_columns_of_the_page(tmp_path: Path, few_pictures: Any) -> None:
    few_pictures()
    store = ResultStore(tmp_path)
    for row in cells():
        store.append(row)
    text = (write_report(tmp_path).parent / "report.md").read_text()
    assert "| times faster at equal quality |" in text
    assert "| training seeds |" not in text  # of synthetic rows nobody knows how far another seed moves them
