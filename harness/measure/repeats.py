"""When warm-up ends and when repeats are enough: rules over seconds, whatever is being timed.

* Warm-up: at least three runs, until the last three lie within 5 % of their median; given up, and then not
  steady, after ten runs or once its budget is spent.
* Repeats: until the 95 % interval of their median lies within 2 % of it, or the budget is spent.
* In turn: the same for several runs at once, in rounds that go forwards and backwards (ABBA), until the
  interval of every ratio to the first is that narrow.

The time spent is the sum of the seconds measured, so the rules hold for any clock.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.quality.intervals import LEVEL, Interval, median_interval

Run = Callable[[], float]
"""Does the work once; returns its seconds."""
StoppedBy = Literal["interval", "budget"]

STEADY_WITHIN = 0.05
STEADY_RUNS = 3
MOST_WARMUPS = 10
INTERVAL_WITHIN = 0.02
_NEEDED_FOR = {"p50": 1, "p90": 44, "p95": 90, "p99": 459}
"""Samples from which the largest bounds the percentile with 99 % confidence: q^n <= 1 %."""


@dataclass(frozen=True)
class WarmUp:
    """Seconds of every warm-up run, and whether it ended because they agreed."""

    seconds: list[float]
    steady: bool


def warm_up(run: Run, budget_s: float, first_s: float | None = None) -> WarmUp:
    """Run until steady. first_s: seconds of a run of the same work before, which counts as one."""
    seconds = [] if first_s is None else [first_s]
    while True:
        seconds.append(run())
        if len(seconds) < STEADY_RUNS:
            continue
        if is_steady(seconds[-STEADY_RUNS:]):
            return WarmUp(seconds, True)
        if len(seconds) >= MOST_WARMUPS or sum(seconds) >= budget_s:
            return WarmUp(seconds, False)


def is_steady(seconds: Sequence[float], within: float = STEADY_WITHIN) -> bool:
    """Whether all lie within a share of their median."""
    middle = statistics.median(seconds)
    return all(abs(value - middle) <= within * middle for value in seconds)


@dataclass(frozen=True)
class Budget:
    """How long repeats go on: ``least`` of them in any case, then while ``seconds`` last, at most ``most``.

    Past ``patience_s`` even the least number is given up, but never the first.
    """

    seconds: float
    least: int = 5
    most: int = 200
    patience_s: float = 120.0

    def spent(self, count: int, seconds: float) -> bool:
        if count < self.least:
            return count > 0 and seconds >= self.patience_s
        return seconds >= self.seconds or count >= self.most


@dataclass(frozen=True)
class Repeats:
    """Seconds of every repeat, and why there are no more."""

    seconds: list[float]
    stopped_by: StoppedBy


def repeat(run: Run, budget: Budget, done: Sequence[float] = ()) -> Repeats:
    """Run until the interval of the median is narrow or the budget is spent.

    done: seconds of equal runs that were made anyway; they count as repeats and against the budget.
    """
    seconds = list(done)
    while True:
        if len(seconds) >= budget.least and is_narrow(median_interval(seconds)):
            return Repeats(seconds, "interval")
        if budget.spent(len(seconds), sum(seconds)):
            return Repeats(seconds, "budget")
        seconds.append(run())


def is_narrow(interval: Interval, within: float = INTERVAL_WITHIN) -> bool:
    """Whether an interval that has its full coverage lies within a share of its value on both sides."""
    reach = max(interval.high - interval.value, interval.value - interval.low)
    return interval.level >= LEVEL and reach <= within * abs(interval.value)


def in_turn(runs: Sequence[Run], budget: Budget) -> list[list[float]]:
    """Seconds of each run by round; rounds come in pairs, so that every run meets both directions alike.

    ``budget`` counts rounds, and the seconds of all runs together.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    while True:
        rounds, spent = len(seconds[0]), sum(map(sum, seconds))
        if rounds % 2 == 0 and rounds > 0:
            if rounds >= budget.least and all(
                is_narrow(ratio_interval(one, seconds[0])) for one in seconds[1:]
            ):
                return seconds
            if budget.spent(rounds, spent):
                return seconds
        order = range(len(runs)) if rounds % 2 == 0 else range(len(runs) - 1, -1, -1)
        for index in order:
            seconds[index].append(runs[index]())


def ratio_interval(seconds: Sequence[float], reference: Sequence[float]) -> Interval:
    """The median of the ratios of each round, with its interval."""
    return median_interval([one / other for one, other in zip(seconds, reference, strict=True)])


def percentiles(seconds: Sequence[float]) -> tuple[dict[str, float | None], dict[str, str]]:
    """p50, p90, p95, p99 where there are samples enough, and why the others are null.

    The percentile is the smallest sample that at least that share of the samples does not exceed.
    """
    ordered, n = sorted(seconds), len(seconds)
    values: dict[str, float | None] = {}
    reasons = {}
    for name, needed in _NEEDED_FOR.items():
        values[name] = None
        if name == "p50":
            values[name] = statistics.median(ordered)
        elif n >= needed:
            values[name] = ordered[-(-n * int(name[1:]) // 100) - 1]
        else:
            reasons[name] = f"{n} samples, of which {name} needs {needed}"
    return values, reasons
