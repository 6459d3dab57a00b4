"""How many tokens each decoding step writes: the published group-size schedules.

Every function returns the sizes of the steps' groups in order; they sum to the number of positions to
generate, and are positive where nothing else is said. Impossible requests raise ``ValueError``. No schedule
knows a grid or an order.
"""

import math
from typing import Literal

Schedule = Literal["arccos", "cosine"]

# The lookup table of LPD (arXiv 2507.01957), which is also its list of training schedules:
# {tokens: {steps: sizes}}, where "2x46" is the size 2 repeated 46 times.
_LPD_PUBLISHED: dict[int, dict[int, str]] = {
    256: {
        256: "1x256",
        128: "1x41 2x46 3x41",
        64: "1x10 2x7 3x7 4x9 5x11 6x20",
        32: "1x2 2x2 3x2 4 5x2 6x2 7x2 8x2 9x2 10x3 11x4 12x8",
        24: "1 2 3 4 5 6 7 8 9 10 11x2 12 13 14x3 15x2 16x3 17x2",
        20: "1 2 4 5 7 8 10 11 12 14 15 16 17 18x2 19x2 20x3",
        16: "1 4 6 8 11 13 15 17 19 20 22 23 24x3 25",
        12: "1 7 11 15 19 22 25 28 30 32 33x2",
        8: "1 15 24 32 40 45 49 50",
    },
    1024: {
        1024: "1x1024",
        512: "1x162 2x188 3x162",
        256: "1x39 2x28 3x31 4x34 5x44 6x80",
        224: "1x32 2x21 3x21 4x24 5x27 6x37 7x62",
        192: "1x22 2x15 3x16 4x16 5x19 6x21 7x27 8x55 10",
        160: "1x15 2x11 3x10 4x12 5x12 6x13 7x14 8x17 9x23 10x33",
        128: "1x10 2x6 3x7 4x7 5x7 6x7 7x8 8x9 9x9 10x11 11x14 12x26 13x7",
        96: "1x5 2x4 3x4 4x4 5x3 6x4 7x4 8x5 9x4 10x4 11x6 12x5 13x6 14x7 15x8 16x13 17x10",
        80: "1x4 2x2 3x3 4x2 5x3 6x3 7x2 8x3 9x3 10x3 11x3 12x3 13x3 14x4 15x4 16x4 17x6 18x6 19x7 20x12",
        64: "1x2 2x2 3x2 4 5x2 6x2 7 8x2 9x2 10x2 11 12x2 13x2 14x2 15x2 16x2 17x2 18x3 19x2 20x3 21x3 22x3 "
        "23x5 24x6 25x8",
        56: "1x2 2 3 4x2 5 6 7 8x2 9 10 11x2 12 13 14x2 15 16x2 17 18x2 19x2 20 21x2 22x2 23x2 24x2 25x3 "
        "26x3 27x5 28x6 29x3",
        48: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23x2 24 25 26x2 27 28x2 29x2 30x2 31x2 "
        "32x3 33x7 34",
        40: "1 2 4 6 7 9 10 12 13 15 16 18 19 20 22 23 24 26 27 28 29 30 31 32 33 34 35x2 36 37x2 "
        "38x2 39x3 40x4",
        32: "1 4 6 9 11 13 16 18 20 23 25 27 29 31 33 35 36 38 40 41 42 44 45 46 47 48x2 49x2 50x3",
    },
}


def one_per_step(n: int) -> tuple[int, ...]:
    """Sequential decoding: ``n`` steps of one token."""
    if n < 1:
        raise ValueError(f"nothing to generate: {n} positions")
    return (1,) * n


def arpg_sizes(unknown: int, steps: int, schedule: Schedule = "arccos") -> tuple[int, ...]:
    """ARPG's sizes (arXiv 2503.10568) for ``unknown`` positions in exactly ``steps`` steps.

    After step k the fraction left is ``arccos((k+1)/steps) / (pi/2)`` or ``cos(pi/2 * (k+1)/steps)``; every
    step writes at least one token and leaves at least one for the last step.
    """
    check_steps(unknown, steps)
    if schedule not in ("arccos", "cosine"):
        raise ValueError(f"unknown schedule {schedule!r}: valid are 'arccos', 'cosine'")
    sizes = []
    left = unknown
    for done in range(1, steps):
        # Truncation makes the last bit of the fraction count: the evaluation order is the published one.
        if schedule == "arccos":
            fraction = math.acos(done / steps) / (math.pi / 2)
        else:
            fraction = math.cos(((math.pi / 2) * done) / steps)
        keep = max(1, min(left - 1, math.trunc(unknown * fraction)))
        sizes.append(left - keep)
        left = keep
    return (*sizes, left)


def lpd_sizes(unknown: int, steps: int, first_is_one: bool = True) -> tuple[int, ...]:
    """LPD's sizes (arXiv 2507.01957) for ``unknown`` positions in exactly ``steps`` steps.

    The published table answers for 256 and 1024 tokens at its step counts. Other requests get the cosine
    formula behind that table, ``max(1, round(unknown * (cos(pi/2 * k/steps) - cos(pi/2 * (k+1)/steps))))``,
    with the first group set to one token and the sum repaired one unit at a time: taken from the earliest of
    the largest groups, given to the latest of them (this repair is ours, not published).
    ``first_is_one=False`` is the variant for a prefilled context, where the first group is like any other and
    the table doesn't apply.
    """
    check_steps(unknown, steps)
    if not first_is_one:
        return _repaired(_cosine_sizes(unknown, steps), unknown)
    if steps == 1 and unknown > 1:
        raise ValueError(f"LPD's first step writes one token, so {unknown} positions need at least 2 steps")
    published = _LPD_PUBLISHED.get(unknown, {}).get(steps)
    if published is not None:
        return _expanded(published)
    return _repaired([1, *_cosine_sizes(unknown, steps)[1:]], unknown)


def lpd_published_steps(tokens: int) -> tuple[int, ...]:
    """Step counts of LPD's published table for this many tokens, ascending; empty where it has none."""
    return tuple(sorted(_LPD_PUBLISHED.get(tokens, {})))


def randar_sizes(places: int, steps: int, written: int = 0) -> tuple[int, ...]:
    """RandAR's sizes (arXiv 2412.01827) for ``places`` positions of which ``written`` stand already.

    One token first; after step c the target is ``(1 - cos(pi/2 * (c+1)/steps)) * places + 1``, truncated, and
    every step writes at least one token. Without written positions 2..places steps come out as asked, one
    step becomes two, and more than ``places`` becomes one token a step. Steps that reach for less than what
    is written are single tokens, so then there may be more of them.
    """
    if places - written < 1:
        raise ValueError(f"nothing to generate: {places - written} positions")
    if steps < 1:
        raise ValueError(f"{steps} steps: at least one is needed")
    sizes, done, size = [], written, 1
    while done < places:
        sizes.append(size)
        done += size
        # Truncation makes the last bit of the cosine count: the evaluation order is the published one.
        fraction = 1 - math.cos(((math.pi / 2) * (len(sizes) + 1)) / steps)
        size = min(max(min(math.trunc(fraction * places + 1), places) - done, 1), places - done)
    return tuple(sizes)


def par_sizes(n_tokens: int, regions: int) -> tuple[int, ...]:
    """PAR's sizes (arXiv 2412.15119): each region's first token alone, then one of every region per step.

    ``n_tokens / regions + regions - 1`` steps in all.
    """
    if regions < 1:
        raise ValueError(f"{regions} regions: at least one is needed")
    if n_tokens < 1 or n_tokens % regions:
        raise ValueError(f"{n_tokens} tokens don't divide into {regions} regions of equal size")
    return (1,) * regions + (regions,) * (n_tokens // regions - 1)


def check_steps(unknown: int, steps: int) -> None:
    if unknown < 1:
        raise ValueError(f"nothing to generate: {unknown} positions")
    if steps < 1:
        raise ValueError(f"{steps} steps: at least one is needed")
    if steps > unknown:
        raise ValueError(f"{steps} steps for {unknown} positions: every step must write at least one")


def _expanded(run_lengths: str) -> tuple[int, ...]:
    sizes: list[int] = []
    for run in run_lengths.split():
        size, _, repeats = run.partition("x")
        sizes += [int(size)] * int(repeats or 1)
    return tuple(sizes)


def _cosine_sizes(unknown: int, steps: int) -> list[int]:
    left = [math.cos(math.pi / 2 * k / steps) for k in range(steps + 1)]
    return [max(1, round(unknown * (left[k] - left[k + 1]))) for k in range(steps)]


def _repaired(sizes: list[int], total: int) -> tuple[int, ...]:
    """Sizes that sum to ``total`` and stay non-decreasing."""
    for _ in range(sum(sizes) - total):
        sizes[sizes.index(max(sizes))] -= 1
    for _ in range(total - sum(sizes)):
        largest = max(sizes)
        sizes[max(k for k, size in enumerate(sizes) if size == largest)] += 1
    return tuple(sizes)
