"""Printed numbers carry their uncertainty, and nothing of a row is lost on the way."""

import csv
import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from synthetic_rows import sweep_rows

from reports.frame import facets
from reports.tables import (
    cost_table,
    failures,
    print_tables,
    quality_table,
    tables,
    to_csv,
    to_markdown,
    with_interval,
)
from results.schema import Row


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (812.3, 798.0, 826.0, "812 ± 14"),
        (0.01234, 0.0112, 0.0135, "0.0123 ± 0.0012"),
        (0.31, 0.28, 0.40, "0.310 [0.280, 0.400]"),
        (5.0, 5.0, 5.0, "5.000 ± 0"),
        (5.5, None, None, "5.500 (n=1)"),
        (12345.6, None, None, "12,346 (n=1)"),
        (-0.0002, -0.0006, 0.0002, "-0.00020 ± 0.00040"),
        (None, None, None, "–"),
    ],
)
def test_intervals_set_the_digits(value: float, low: float, high: float, text: str) -> None:
    assert with_interval(value, low, high) == text


@given(st.floats(-1e9, 1e9), st.floats(0, 1e6), st.floats(0, 1e6))
def test_every_number_is_printed_with_its_uncertainty(value: float, below: float, above: float) -> None:
    text = with_interval(value, value - below, value + above)
    assert re.fullmatch(r"-?[\d.,]+ ± [\d.]+|-?[\d.]+ \[-?[\d.]+, -?[\d.]+\]|-?[\d.,e+-]+ ± 0", text)


def test_anchors_and_failures_stand_in_every_table(rows: Sequence[Row]) -> None:
    (facet,) = facets(rows)
    for table in tables(facet):
        assert [row.strategy for row in table.rows[:2]] == ["real", "reconstruction"]
        status = next(i for i, column in enumerate(table.columns) if column.heading == "status")
        assert [e[status].text for e in table.entries][-1].startswith("oom: CPU out of memory")


def test_measured_columns_are_never_bare(rows: Sequence[Row]) -> None:
    (facet,) = facets(rows)
    exact = {"strategy", "steps", "forwards", "tokens", "parameters", "GFLOPs/image", "guidance"}
    exact |= {"weights MB", "cache MB", "status"}
    for table in (quality_table(facet), cost_table(facet)):
        for entries in table.entries:
            for column, entry in zip(table.columns, entries, strict=True):
                bare = not re.search(r"±|\[|\(n=1\)|–", entry.text)
                assert not bare or column.heading in exact, (column.heading, entry.text)


def test_markdown_is_a_table_of_equal_columns(rows: Sequence[Row]) -> None:
    (facet,) = facets(rows)
    lines = to_markdown(cost_table(facet)).splitlines()
    assert len(lines) == len(rows) + 2
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<at step" not in lines[-1]


def test_csv_keeps_unrounded_numbers(rows: Sequence[Row]) -> None:
    read = {line["cell"]: line for line in csv.DictReader(io.StringIO(to_csv(rows)))}
    assert set(read) == {row.cell for row in rows}
    for row in rows:
        written = read[row.cell]["latency_s"]
        assert (float(written) if written else None) == row.latency_s


@pytest.mark.parametrize("width", [60, 100, 220])
def test_terminal_tables_fit_and_lose_nothing(rows: Sequence[Row], width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    print_tables(facets(rows), console)
    text = stream.getvalue()
    assert max(len(line) for line in text.splitlines() if line[:1] in "┏┃│└") <= width
    for part in (
        "9.80 ± 0.59",
        "latency ms",
        "best images/s",
        "LPD random order",
        "Real images",
        "[low, high]",
    ):
        assert part in text
    assert "…" not in text


def test_piped_tables_are_uncut(rows: Sequence[Row]) -> None:
    stream = io.StringIO()
    print_tables(facets(rows), Console(file=stream, width=40))
    text = stream.getvalue()
    assert "…" not in text
    assert text.count("LPD random order") == 2


def test_failures_name_setting_status_and_cause(rows: Sequence[Row]) -> None:
    (line,) = failures(rows)
    assert line.startswith("ARPG, 4 steps: oom after 1 attempt: CPU out of memory")


def test_the_cost_table_has_its_units():
    (facet,) = facets(sweep_rows())
    table = cost_table(facet)
    at = next(n for n, row in enumerate(table.rows) if row.label == "PAR")
    shown = dict(
        zip([one.heading for one in table.columns], [one.text for one in table.entries[at]], strict=True)
    )

    assert (shown["parameters"], shown["GFLOPs/image"], shown["weights MB"], shown["cache MB"]) == (
        "1.263 M",
        "0.1700",
        "5.051",
        "6.390",
    )
    assert shown["latency ms"] == "15.1 [14.5, 16.3]"
    assert shown["peak MB"] == "11.96 (n=1)"


def test_csv_keeps_metrics_and_their_bounds():
    rows = sweep_rows()
    read = {line["cell"]: line for line in csv.DictReader(io.StringIO(to_csv(rows)))}
    for row in rows:
        for name, one in (row.quality or {}).items():
            assert [float(read[row.cell][f"{name}{end}"]) for end in ("", "_low", "_high")] == [
                one["value"],
                one["low"],
                one["high"],
            ]
