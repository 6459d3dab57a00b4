"""Tables on narrow terminals: every number whole, every word there, what doesn't fit below."""

import io
import re

import pytest
from rich.console import Console

from harness.regress.judge import Finding
from harness.regress.show import print_findings
from reports.compare import compare, compare_within, print_comparison, print_text_tables
from reports.fitting import print_fitting
from reports.frame import facets
from reports.tables import print_tables
from tests.reports.synthetic_rows import sweep_rows

WIDTHS = (40, 60, 80, 100, 133, 200)


def printed(draw, width: int) -> str:
    stream = io.StringIO()
    draw(Console(file=stream, width=width, force_terminal=True, color_system=None))
    return stream.getvalue()


def numbers(text: str) -> set[str]:
    """Numbers with their intervals, as they stand on one line."""
    return set(re.findall(r"-?[\d,.]*\d(?: ± [\d.]+| \[[^\]\n]*\]| \(n=1\))", text))


def words(text: str) -> set[str]:
    return set(re.sub(r"[┃│┏━┳┓┡╇┩┗┻┛├─┼┤└┴┘╭╮╰╯]", " ", text).split())


@pytest.fixture(scope="module")
def drawn(sweep):
    """What is printed, by name."""
    comparison, within, rows = compare(sweep, sweep), compare_within(sweep), sweep_rows()
    why = "it is slower by more than the noise of both"
    setting = "LPD, 10 steps, guidance 3"
    findings = [Finding(setting, "time", "latency_s", "1.25 ± 0.02", "2.5 ± 0.1", "fail", why)]
    return {
        "compare": lambda console: print_comparison(comparison, console),
        "compare-within": lambda console: print_text_tables(within, console),
        "tables": lambda console: print_tables(facets(rows), console),
        "regress": lambda console: print_findings(findings, console),
    }


@pytest.mark.parametrize("what", ["compare", "compare-within", "tables", "regress"])
def test_no_number_and_no_word_is_cut(drawn, what):
    wide = printed(drawn[what], 10_000)
    assert len(numbers(wide)) > 1
    for width in WIDTHS:
        narrow = printed(drawn[what], width)
        assert "…" not in narrow or "…" in wide
        assert numbers(wide) <= numbers(narrow)
        long = {word for word in words(wide) if len(word) > 24}  # only these may be broken
        assert words(wide) - long <= words(narrow)


@pytest.mark.parametrize("what", ["compare", "tables", "regress"])
def test_lines_of_tables_fit(drawn, what):
    for width in (80, 100, 200):
        framed = [line for line in printed(drawn[what], width).splitlines() if line[:1] in "┃│┏┡├└"]
        assert framed
        assert max(map(len, framed)) <= width


@pytest.mark.parametrize("what", ["compare", "tables"])
def test_a_wide_terminal_needs_fewer_blocks(drawn, what):
    blocks = [printed(drawn[what], width).count("┏") for width in (80, 200, 10_000)]
    assert blocks[0] > blocks[1] >= blocks[2]


def test_columns_that_do_not_fit_come_below_with_their_keys():
    headings = ("setting", "a", "b", "c")
    lines = [["raster", "1.00 ± 0.01", "2.00 ± 0.01", "3.00 ± 0.01"]]
    text = printed(lambda console: print_fitting(console, headings, lines, right=("a", "b", "c")), 40)
    assert text.count("raster") == 2
    rows = [line for line in text.splitlines() if "raster" in line]
    assert [len(numbers(row)) for row in rows] == [2, 1]
    stream = io.StringIO()
    print_fitting(Console(file=stream, width=40), headings, lines)
    assert stream.getvalue().count("raster") == 1  # a file is as wide as it need be


def test_a_number_wider_than_the_terminal_stays_whole():
    lines = [["a long name of a setting", "123,456,789.123 [120,000,000.000, 130,000,000.000]"]]
    text = printed(lambda console: print_fitting(console, ("setting", "n"), lines), 30)
    assert lines[0][1] in text


def test_wide_characters_are_counted():
    lines = [["大" * 15, "1.5 ± 0.1"]] * 2
    text = printed(lambda console: print_fitting(console, ("名", "n"), lines), 46)
    assert text.count("大" * 15) == 2
