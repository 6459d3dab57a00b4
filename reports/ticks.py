"""Numbers along logarithmic axes: at least three that a reader counts by, and none that touches another.

matplotlib's own locator knows no size: within less than a decade it may number a single tick, over many it
gives up. Every logarithmic axis of the figures takes its ticks from here; its limits and its place in the
figure must be final.
"""

import math
from collections.abc import Iterator, Sequence

import matplotlib

matplotlib.use("Agg")

from matplotlib.axis import Axis
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

LEAST = 3
"""Numbers that an axis shows at least: with two, nobody sees whether it is logarithmic."""
_GAP = 4.0
"""Points between two numbers of a horizontal axis."""
_DIGIT = 0.64
"""Width of a digit over the font's size."""
_LINE = 1.3
"""Height of a line over the font's size."""
_FEW = 20.0
"""Ratio of the limits up to which ticks at even steps may stand on a logarithmic axis."""
_ROUNDING = 1e-9
"""Relative error of a limit, on which a tick may stand."""


class OneTwoFive(Locator):
    """Ticks at 1, 2 and 5 times the powers of ten, at fewer of them over many decades, at even steps (of 1, 2
    or 5) where those are too few: the first of these whose numbers keep apart, or what can be kept of one."""

    def __call__(self) -> Sequence[float]:
        assert self.axis is not None
        low, high = sorted(self.axis.get_view_interval())
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        sets = list(_candidates(vmin, vmax))
        thinned = [self._apart(ticks) for ticks in sets]
        whole = [ticks for ticks, apart in zip(sets, thinned, strict=True) if apart == ticks]
        enough = (ticks for ticks in (*whole, *thinned) if len(ticks) >= LEAST)
        return next(enough, max(thinned, key=len, default=[]))

    def _apart(self, ticks: Sequence[float]) -> list[float]:
        """The ticks without those whose numbers would touch the one before them."""
        assert isinstance(self.axis, Axis)
        kept: list[float] = []
        end = -math.inf
        for tick in ticks:
            place, half = _place(self.axis, tick), _needed(self.axis, number(tick)) / 2
            if place - half >= end:
                kept.append(tick)
                end = place + half
        return kept


def log_ticks(axis: Axis) -> None:
    """Plain numbers at ``OneTwoFive``, and marks without one at every digit."""
    axis.set_major_locator(OneTwoFive())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_locator(LogLocator(base=10, subs=range(2, 10)))
    axis.set_minor_formatter(NullFormatter())


def ticks_at(axis: Axis, values: Sequence[int]) -> None:
    """A tick at each of the rising ``values`` of a horizontal axis, with its number in the first of two lines
    that has room for it; one that neither line has room for is a mark alone."""
    ends = [-math.inf, -math.inf]
    texts = []
    for value in values:
        place = _place(axis, value)
        half = _needed(axis, str(value)) / 2
        line = next((at for at, end in enumerate(ends) if place - half >= end), None)
        if line is not None:
            ends[line] = place + half
        texts.append("" if line is None else "\n" * line + str(value))
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FixedFormatter(texts))
    axis.set_minor_locator(NullLocator())


def number(value: float) -> str:
    """A tick's number as short as it is exact: 0.05, 2000, 5e6."""
    if value and not 1e-4 <= abs(value) < 1e6:
        digits, power = f"{value:e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.10g}"


def _candidates(low: float, high: float) -> Iterator[list[float]]:
    """Sets of ticks between the limits, best first."""
    if not 0 < low < high:
        return
    low, high = low * (1 - _ROUNDING), high * (1 + _ROUNDING)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def inside(digits: Sequence[int], stride: int = 1) -> list[float]:
        found = [float(f"{digit}e{power}") for power in powers if power % stride == 0 for digit in digits]
        return [tick for tick in found if low <= tick <= high]

    for digits in ((1, 2, 5), (1, 5), (1,)):
        yield inside(digits)
    for stride in range(2, len(powers)):
        yield inside((1,), stride)
    if high / low <= _FEW:
        for count in (4, 5, 3, 6, 7, 8, 9):
            even = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
            yield [float(f"{tick:.10g}") for tick in even if low <= tick <= high]


def _place(axis: Axis, value: float) -> float:
    """Points from the lower end of the axis to a value."""
    low, high = sorted(axis.get_view_interval())
    figure = axis.axes.get_figure(root=True)
    assert figure is not None
    frame, (wide, tall) = axis.axes.get_position(), figure.get_size_inches()
    length = 72 * (frame.width * wide if _across(axis) else frame.height * tall)
    return float(length * math.log(value / low) / math.log(high / low))


def _across(axis: Axis) -> bool:
    return axis is axis.axes.xaxis


def _needed(axis: Axis, text: str) -> float:
    """Points along the axis that a number takes with the air around it."""
    size = float(axis.get_major_ticks(1)[0].label1.get_fontsize())
    return _DIGIT * size * len(text) + _GAP if _across(axis) else _LINE * size
