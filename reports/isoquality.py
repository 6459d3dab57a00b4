"""How much faster at equal quality, how much better at equal time: whole curves compared, not points.

A strategy's curve is the front of its cells over steps and guidance: the best quality to be had at each
time. Between its points log time is interpolated linearly in the metric. Two curves are compared where they
overlap: the ratio of times is averaged (geometrically) over the qualities that both reach, the difference of
qualities over the times that both take, as in Bjøntegaard's deltas (VCEG-M33, 2001). Without overlap there is
no figure.

Intervals come from a parametric bootstrap of the points: quality with its jackknife covariance, so that noise
shared by cells of one seed stays shared, and the logarithm of time with the spread of its repeats. The front
is taken anew in every draw, so the luck of the point that happens to be best is part of the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.comparability import lower_is_better, quantity, require_comparable
from reports.inference import LEVEL, Contrast, normal_sd
from reports.measured import THROUGHPUT, estimate_of, measured, replicates_of
from results.schema import Row

DRAWS = 2000
UNCERTAIN = 0.05
"""Share of draws without overlap beyond which no interval is given."""
_LEVELS = 33
"""Qualities or times over which a comparison is averaged."""
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Cells of one strategy: seconds per image and the metric, with what is known of their errors.

    label: of the series. log_time: float64 [n], log seconds per image; log_time_sd: [n]. quality: [n], lower
    is better (scores are negated); quality_sd: [n]; without: [n, G] with one group of images left out, or
    None where some cell has none.
    """

    label: str
    strategy: str
    log_time: Array
    log_time_sd: Array
    quality: Array
    quality_sd: Array
    without: Array | None = None


@dataclass(frozen=True, eq=False)
class Advantage:
    """B against A. ``faster``: times A's speed at equal quality; ``better``: metric B - A at equal time.

    None where the curves do not overlap, and ``why`` says so. The ranges are those averaged over.
    """

    a: Curve
    b: Curve
    metric: str
    faster: Contrast | None
    qualities: tuple[float, float] | None
    better: Contrast | None
    times_s: tuple[float, float] | None
    why: str


def curve(label: str, rows: Sequence[Row], metric: str) -> Curve | None:
    """The curve of the cells that have the metric and a time; None without any.

    Raises Incomparable where the cells' times or metrics must not be set side by side.
    """
    kept = [row for row in rows if row.throughput_images_per_s and measured(row, metric) is not None]
    if not kept:
        return None
    for name in (metric, THROUGHPUT):
        require_comparable(kept, quantity(name).keys, name)
    sign = 1.0 if lower_is_better(metric) else -1.0
    qualities = [estimate_of(row, metric) for row in kept]
    rates = [estimate_of(row, THROUGHPUT) for row in kept]
    logs = [(np.log(v), low and np.log(low), high and np.log(high)) for v, low, high in rates]
    found = [replicates_of(row, metric) for row in kept]
    known = [values for values in found if values is not None]
    whole = len(known) == len(kept) and len({len(values) for values in known}) == 1
    return Curve(
        label,
        kept[0].strategy,
        log_time=-np.array([value for value, _, _ in logs]),
        log_time_sd=np.array([normal_sd(one) for one in logs]),
        quality=sign * np.array([value for value, _, _ in qualities]),
        quality_sd=np.array([normal_sd(one) for one in qualities]),
        without=sign * np.stack(known) if whole else None,
    )


def advantage(a: Curve, b: Curve, metric: str, draws: int = DRAWS, seed: int = 0) -> Advantage:
    """What B gains over A at equal quality and at equal time, with 95 % intervals."""
    faster, qualities = _faster(a.log_time, a.quality, b.log_time, b.quality)
    better, times = _better(a.log_time, a.quality, b.log_time, b.quality)
    sign = 1.0 if lower_is_better(metric) else -1.0
    reasons = _reasons(front(a.log_time, a.quality), front(b.log_time, b.quality), sign)
    drawn = _drawn(a, b, draws, seed)
    speeds = [_faster(*points)[0] for points in drawn] if faster is not None else []
    gains = [_better(*points)[0] for points in drawn] if better is not None else []
    for name, found in (("quality", speeds), ("time", gains)):
        missing = sum(value is None for value in found) / draws
        if missing > UNCERTAIN:
            reasons.append(
                f"no interval at equal {name}: no overlap in {100 * missing:.0f} % of the resamples"
            )
    return Advantage(
        a,
        b,
        metric,
        None if faster is None else _exponential(_contrast(faster, speeds)),
        None if qualities is None else _ordered(sign * qualities[0], sign * qualities[1]),
        None if better is None else _signed(_contrast(better, gains), sign),
        None if times is None else (float(np.exp(times[0])), float(np.exp(times[1]))),
        "; ".join(reasons),
    )


def front(log_time: Array, quality: Array) -> tuple[Array, Array]:
    """The points that no other equals or beats in both: rising time, strictly falling (better) quality."""
    order = np.lexsort((quality, log_time))
    best = np.minimum.accumulate(quality[order])
    kept = order[np.concatenate([[True], best[1:] < best[:-1]])]
    return log_time[kept], quality[kept]


def _faster(
    time_a: Array, quality_a: Array, time_b: Array, quality_b: Array
) -> tuple[float | None, tuple[float, float] | None]:
    """log(time of A / time of B), averaged over the qualities on both fronts, and their range."""
    (time_a, quality_a), (time_b, quality_b) = front(time_a, quality_a), front(time_b, quality_b)
    low, high = max(quality_a[-1], quality_b[-1]), min(quality_a[0], quality_b[0])
    if low > high:
        return None, None
    levels = np.linspace(low, high, _LEVELS)
    needed_a = np.interp(levels, quality_a[::-1], time_a[::-1])
    needed_b = np.interp(levels, quality_b[::-1], time_b[::-1])
    return float((needed_a - needed_b).mean()), (float(low), float(high))


def _better(
    time_a: Array, quality_a: Array, time_b: Array, quality_b: Array
) -> tuple[float | None, tuple[float, float] | None]:
    """Quality of B - A, averaged over the log times on both fronts, and their range."""
    (time_a, quality_a), (time_b, quality_b) = front(time_a, quality_a), front(time_b, quality_b)
    low, high = max(time_a[0], time_b[0]), min(time_a[-1], time_b[-1])
    if low > high:
        return None, None
    levels = np.linspace(low, high, _LEVELS)
    reached_a, reached_b = np.interp(levels, time_a, quality_a), np.interp(levels, time_b, quality_b)
    return float((reached_b - reached_a).mean()), (float(low), float(high))


def _reasons(front_a: tuple[Array, Array], front_b: tuple[Array, Array], sign: float) -> list[str]:
    """Why the fronts have no quality or no time in common, and whether one beats all of the other."""
    found = []
    (time_a, quality_a), (time_b, quality_b) = front_a, front_b
    if max(quality_a[-1], quality_b[-1]) > min(quality_a[0], quality_b[0]):
        found.append(f"no common quality: A {_span(quality_a, sign)}, B {_span(quality_b, sign)}")
    if max(time_a[0], time_b[0]) > min(time_a[-1], time_b[-1]):
        found.append(
            f"no common time: A {_span(np.exp(time_a) * 1e3)} ms, B {_span(np.exp(time_b) * 1e3)} ms"
        )
    for winner, loser, (times, qualities), (other_times, other_qualities) in (
        ("A", "B", front_a, front_b),
        ("B", "A", front_b, front_a),
    ):
        beaten = (times[:, None] <= other_times) & (qualities[:, None] < other_qualities)
        if found and beaten.any(axis=0).all():
            found.append(f"every point of {loser} has one of {winner} that is no slower and better")
    return found


def _drawn(a: Curve, b: Curve, draws: int, seed: int) -> list[tuple[Array, Array, Array, Array]]:
    """(times A, qualities A, times B, qualities B) of every resample."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    shared = a.without is not None and b.without is not None and a.without.shape[1] == b.without.shape[1]
    noise = generator.standard_normal((draws, a.without.shape[1] if shared and a.without is not None else 0))
    parts = []
    for one in (a, b):
        times = one.log_time + one.log_time_sd * generator.standard_normal((draws, len(one.log_time)))
        if shared and one.without is not None:
            groups = one.without.shape[1]
            centred = one.without - one.without.mean(axis=1, keepdims=True)
            errors = noise @ centred.T * np.sqrt((groups - 1) / groups)  # [draws, n]
        else:
            errors = one.quality_sd * generator.standard_normal((draws, len(one.quality)))
        parts += [times, one.quality + errors]
    return list(zip(*parts, strict=True))


def _contrast(value: float, drawn: Sequence[float | None]) -> Contrast:
    """Percentile interval, and twice the smaller share of draws on either side of 0."""
    known = np.array([one for one in drawn if one is not None])
    if len(known) < (1 - UNCERTAIN) * len(drawn) or not known.any():
        return Contrast(value, None, None, None)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    side = min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * (float(side) + 1) / (len(known) + 1))
    return Contrast(value, float(low), float(high), p)


def _exponential(one: Contrast) -> Contrast:
    low, high = (None if bound is None else float(np.exp(bound)) for bound in (one.low, one.high))
    return Contrast(float(np.exp(one.value)), low, high, one.p)


def _signed(one: Contrast, sign: float) -> Contrast:
    """In the metric's own direction."""
    if sign > 0 or one.low is None or one.high is None:
        return Contrast(sign * one.value, one.low, one.high, one.p)
    return Contrast(-one.value, -one.high, -one.low, one.p)


def _ordered(one: float, other: float) -> tuple[float, float]:
    return min(one, other), max(one, other)


def _span(values: Array, sign: float = 1.0) -> str:
    low, high = _ordered(sign * float(values.min()), sign * float(values.max()))
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
