"""Numbers along logarithmic axes: the expected ones, at least three, and none on another."""

import itertools
import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis, Tick

from reports import style
from reports.ticks import LEAST, log_ticks, number, ticks_at


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def drawn(low: float, high: float, size: tuple[float, float] = (7.2, 4.8)) -> Axes:
    """Both axes logarithmic between the same limits, drawn."""
    with plt.rc_context(style.rc()):
        figure, axes = plt.subplots(figsize=size)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        for axis in (axes.xaxis, axes.yaxis):
            log_ticks(axis)
        figure.canvas.draw()
    return axes


def within(axis: Axis, tick: Tick) -> bool:
    low, high = axis.get_view_interval()
    return low * (1 - 1e-9) <= tick.get_loc() <= high * (1 + 1e-9)


def numbers(axis: Axis) -> list[str]:
    """The texts of the ticks inside the limits."""
    ticks = [tick for tick in axis.get_major_ticks() if within(axis, tick)]
    return [tick.label1.get_text() for tick in ticks if tick.label1.get_text()]


def touching(axis: Axis) -> list[tuple[str, str]]:
    """Pairs of numbers inside the limits that overlap; the box of a lower line covers the empty one above."""
    shown = [tick.label1 for tick in axis.get_major_ticks() if within(axis, tick)]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_text()]
    return [
        (a, b)
        for (a, one), (b, two) in itertools.combinations(boxes, 2)
        if line(a) == line(b) and one.overlaps(two)
    ]


def line(text: str) -> int:
    return text.count("\n")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.03, 0.2, "0.05 0.1 0.2"),
        (1, 8, "1 2 5"),
        (3, 3000, "5 10 20 50 100 200 500 1000 2000"),
        (93, 240, "100 150 200"),
        (15, 60, "20 40 60"),
        (0.9, 1.1, "0.9 1 1.1"),
        (206, 207.5, "206 206.5 207 207.5"),
        (4, 120, "5 10 20 50 100"),
        (2e-6, 3e9, "1e-5 0.0001 0.001 0.01 0.1 1 10 100 1000 10000 100000 1e6 1e7 1e8 1e9"),
    ],
)
def test_a_log_axis_counts_by_one_two_five(low: float, high: float, expected: str) -> None:
    axes = drawn(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        assert touching(axis) == []
    assert " ".join(numbers(axes.yaxis)) == expected
    if high / low < 1e6:  # numbers of so many digits are fewer across
        assert numbers(axes.xaxis) == numbers(axes.yaxis)


@given(st.floats(-4, 6), st.floats(0.1, 2), st.sampled_from([(7.2, 4.8), (3.7, 3.0)]))
@settings(max_examples=40, deadline=None)
def test_an_axis_of_less_than_two_decades_shows_at_least_three_numbers(
    start: float, decades: float, size: tuple[float, float]
) -> None:
    axes = drawn(10**start, 10 ** (start + decades), size)
    for axis in (axes.xaxis, axes.yaxis):
        assert len(numbers(axis)) >= LEAST
        assert touching(axis) == []
    plt.close("all")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([8, 64, 67, 256], ["8", "64", "\n67", "256"]),
        ([64, 67, 75, 78, 88, 256], ["64", "\n67", "78", "\n88", "256"]),
        ([12, 31, 32, 33, 34, 35], ["12", "31", "\n32"]),
    ],
)
def test_given_ticks_stand_in_two_lines_and_none_on_another(values: list[int], texts: list[str]) -> None:
    with plt.rc_context(style.rc()):
        figure, axes = plt.subplots(figsize=(7.2, 4.8))
        axes.set_xscale("log", base=2)
        axes.set_xlim(6, 400)
        ticks_at(axes.xaxis, values)
        figure.canvas.draw()
    assert [tick.get_loc() for tick in axes.xaxis.get_major_ticks()] == values
    assert numbers(axes.xaxis) == texts
    assert touching(axes.xaxis) == []
    assert axes.xaxis.get_minorticklocs().size == 0


@pytest.mark.parametrize(
    ("value", "text"), [(0.05, "0.05"), (2000, "2000"), (5e6, "5e6"), (1.5e-5, "1.5e-5")]
)
def test_numbers_are_short_and_exact(value: float, text: str) -> None:
    assert number(value) == text
    assert math.isclose(float(number(value)), value)


def test_a_text_is_as_wide_in_a_file_as_where_it_was_laid_out() -> None:
    """Labels keep apart, and captions stay on the paper, at the resolution of a file as at that of layout."""
    text, widths = "device cpu (Intel(R) Xeon(R) Processor; threads: 2), dtype float32", []
    with plt.rc_context(style.rc()):
        for dpi in (72, style.RC["figure.dpi"], style.RC["savefig.dpi"]):
            drawn_text = plt.figure(dpi=dpi).text(0, 0, text, fontsize=7.5)
            widths.append(drawn_text.get_window_extent().width / dpi)
    assert max(widths) < 1.005 * min(widths)
