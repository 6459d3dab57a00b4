"""Two sets of results set side by side, cell by cell, where that is meaningful.

Cells are joined by their setting. Whether a number may be compared depends on what it needs to have in
common: quality needs tokenizer, reference, N and protocol, speed and memory the machine and its settings.
Where that differs the comparison says which keys differ, instead of a number.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports import style
from reports.frame import (
    QUALITY_KEYS,
    SPEED_KEYS,
    Incomparable,
    facet_keys,
    lower_is_better,
    require_comparable,
)
from reports.tables import DASH, with_interval
from results.errors import UserError
from results.schema import Row
from results.store import load_rows

SETTING = (
    "tier",
    "strategy",
    "options",
    "network",
    "steps",
    "guidance",
    "guidance_schedule",
    "temperature",
    "top_k",
    "top_p",
    "batch",
    "dtype",
    "seed",
    "compile",
    "products",
)
"""Cells with equal values of these fields are the same setting."""

Verdict = Literal["better", "worse", "no difference shown", "differs"]
"""``differs``: a counted quantity, exact in both."""

Estimate = tuple[float, float | None, float | None]
"""value, low, high"""


@dataclass(frozen=True)
class Difference:
    """One quantity of one setting in A and B; ``low`` and ``high`` bound the difference B - A."""

    name: str
    a: str
    b: str
    change: float
    low: float | None
    high: float | None
    relative: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Obstacle:
    """Quantities of a pair that can't be compared: ``keys`` differ, ``text`` says how."""

    what: str
    keys: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Pair:
    """One setting in both results."""

    a: Row
    b: Row
    differences: tuple[Difference, ...]
    obstacles: tuple[Obstacle, ...]
    notes: tuple[str, ...]
    """Failures, and differing weights."""


@dataclass(frozen=True)
class Comparison:
    """All settings of two results."""

    name_a: str
    name_b: str
    pairs: tuple[Pair, ...]
    only_a: tuple[Row, ...]
    only_b: tuple[Row, ...]


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """Compares two result folders or files; UserError where one is missing or they share no setting."""
    rows_a, rows_b = load_rows(a), load_rows(b)
    waiting: dict[str, list[Row]] = {}
    for row in rows_b:
        waiting.setdefault(setting_key(row), []).append(row)
    pairs, only_a = [], []
    for row in sorted(rows_a, key=_position):
        partners = waiting.get(setting_key(row))
        if not partners:
            only_a.append(row)
            continue
        partner = min(partners, key=lambda other: _mismatches(row, other))
        partners.remove(partner)
        pairs.append(_pair(row, partner))
    only_b = sorted((row for rows in waiting.values() for row in rows), key=_position)
    if not pairs:
        ours, theirs = _settings(rows_a), _settings(rows_b)
        raise UserError(f"'{a}' and '{b}' share no setting: the first has {ours}; the second has {theirs}")
    return Comparison(str(a), str(b), tuple(pairs), tuple(only_a), tuple(only_b))


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """The comparison on the terminal."""
    console = console or Console()
    table = Table(title=f"A = {comparison.name_a}   B = {comparison.name_b}", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(
            heading, justify="left" if heading in ("setting", "quantity", "verdict") else "right"
        )
    for pair in comparison.pairs:
        for index, cells in enumerate(_lines(pair)):
            name = Text(cells[0] if index == 0 else "", style=style.colour(pair.a.strategy))
            table.add_row(name, *map(Text, cells[1:]))
        table.add_section()
    if not console.is_terminal:
        needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
        console.width = max(console.width, needed)
    console.print(table, crop=False)
    for line in _remarks(comparison):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison as GitHub Markdown."""
    lines = [f"A = {comparison.name_a}, B = {comparison.name_b}", ""]
    lines += ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    for pair in comparison.pairs:
        lines += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in _lines(pair)
        ]
    return "\n".join([*lines, "", *(f"- {line}" for line in _remarks(comparison)), ""])


def interval_of_difference(a: Estimate, b: Estimate) -> tuple[float | None, float | None]:
    """Bounds of B - A from two independent estimates (value, low, high) and their intervals.

    MOVER, the method of variance estimates recovery (Zou and Donner, Statistics in Medicine 2008): exact for
    normal estimates, and sound for lopsided intervals. Cells that share their random numbers differ by less
    than independent ones, so for them the bounds are wide, never narrow.
    """
    (value_a, low_a, high_a), (value_b, low_b, high_b) = a, b
    if low_a is None or high_a is None or low_b is None or high_b is None:
        return None, None
    change = value_b - value_a
    return (
        change - math.hypot(value_b - low_b, high_a - value_a),
        change + math.hypot(high_b - value_b, value_a - low_a),
    )


_HEADINGS = ("setting", "quantity", "A", "B", "B - A", "change", "verdict")
_COUNTS = ("parameters", "forwards", "tokens_processed", "flops_per_image", "weight_bytes", "cache_bytes")


def _pair(a: Row, b: Row) -> Pair:
    failed = [
        f"{side}: {row.status}: {' '.join((row.reason or '').split())}"
        for side, row in (("A", a), ("B", b))
        if row.status != "ok"
    ]
    if failed:
        return Pair(a, b, (), (), tuple(failed))
    differences: list[Difference] = []
    obstacles: list[Obstacle] = []
    for keys, what, measure in (
        (QUALITY_KEYS, "quality", _quality),
        (SPEED_KEYS, "speed and memory", _speed),
    ):
        try:
            require_comparable((a, b), keys, what)
            differences += measure(a, b)
        except Incomparable as error:
            obstacles.append(Obstacle(what, error.keys, str(error)))
    for name in _COUNTS:
        one, two = getattr(a, name), getattr(b, name)
        if one is not None and two is not None and one != two:
            differences.append(_counted(name, one, two))
    notes = ("the weights differ (checkpoint)",) if a.checkpoint != b.checkpoint else ()
    return Pair(a, b, tuple(differences), tuple(obstacles), notes)


def _quality(a: Row, b: Row) -> list[Difference]:
    found = []
    for name, metric in (a.quality or {}).items():
        other = (b.quality or {}).get(name)
        if other is not None:
            bounds_a, bounds_b = (metric["low"], metric["high"]), (other["low"], other["high"])
            found.append((name, metric["value"], bounds_a, other["value"], bounds_b, lower_is_better(name)))
    return _measured_in_both(found)


def _speed(a: Row, b: Row) -> list[Difference]:
    rate, latency, peak = "throughput_images_per_s", "latency_s", "peak_bytes"
    return _measured_in_both(
        [
            (rate, getattr(a, rate), a.throughput_interval, getattr(b, rate), b.throughput_interval, False),
            (latency, a.latency_s, a.latency_interval_s, b.latency_s, b.latency_interval_s, True),
            (peak, a.peak_bytes, None, b.peak_bytes, None, True),
        ]
    )


Bounds = Sequence[float | None] | None


def _measured_in_both(
    quantities: Sequence[tuple[str, float | None, Bounds, float | None, Bounds, bool]],
) -> list[Difference]:
    """Differences of (name, A, its bounds, B, its bounds, lower is better) where both were measured."""
    found = []
    for name, value_a, bounds_a, value_b, bounds_b, lower in quantities:
        if value_a is None or value_b is None:
            continue
        (low_a, high_a), (low_b, high_b) = bounds_a or (None, None), bounds_b or (None, None)
        found.append(_measured(name, (value_a, low_a, high_a), (value_b, low_b, high_b), lower))
    return found


def _measured(name: str, a: Estimate, b: Estimate, lower: bool) -> Difference:
    change = b[0] - a[0]
    low, high = interval_of_difference(a, b)
    verdict: Verdict = "no difference shown"
    if low is not None and high is not None and not low <= 0 <= high:
        verdict = "better" if (change < 0) == lower else "worse"
    relative = change / a[0] if a[0] else None
    return Difference(name, with_interval(*a), with_interval(*b), change, low, high, relative, verdict)


def _counted(name: str, a: float, b: float) -> Difference:
    return Difference(
        name, f"{a:,.0f}", f"{b:,.0f}", b - a, None, None, (b - a) / a if a else None, "differs"
    )


def _lines(pair: Pair) -> list[list[str]]:
    """Table lines of a pair: one per difference, one per obstacle."""
    name = display_name(pair.a)
    lines = []
    for one in pair.differences:
        change = (
            f"{one.change:+,.0f}"
            if one.verdict == "differs"
            else with_interval(one.change, one.low, one.high)
        )
        relative = DASH if one.relative is None else f"{100 * one.relative:+.1f} %"
        lines.append([name, one.name, one.a, one.b, change, relative, one.verdict])
    lines += [
        [name, one.what, DASH, DASH, DASH, DASH, f"not comparable: {', '.join(one.keys)}"]
        for one in pair.obstacles
    ]
    return lines or [[name, "nothing", DASH, DASH, DASH, DASH, "failed" if pair.notes else "not measured"]]


def _remarks(comparison: Comparison) -> list[str]:
    lines = ["B - A with its 95 % interval; a difference is called better or worse when that excludes zero."]
    for pair in comparison.pairs:
        details = [*(one.text for one in pair.obstacles), *pair.notes]
        lines += [f"{display_name(pair.a)}: {detail}" for detail in details]
    lines += [f"only in A: {display_name(row)}" for row in comparison.only_a]
    lines += [f"only in B: {display_name(row)}" for row in comparison.only_b]
    return lines


def display_name(row: Row) -> str:
    parts = [row.label]
    if row.tier != "anchor":
        parts += [f"{row.steps} steps", f"batch {row.batch}", row.dtype]
        parts += [f"guidance {row.guidance:g}"] if row.guidance is not None else []
        parts += [f"seed {row.seed}"]
    return ", ".join(parts)


def setting_key(row: Row) -> str:
    """The join key; anchors decode nothing, so only their kind counts."""
    names = ("tier", "strategy") if row.tier == "anchor" else SETTING
    return json.dumps([getattr(row, name) for name in names], sort_keys=True)


def _settings(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(display_name(row) for row in sorted(rows, key=_position)))
    return "; ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _mismatches(a: Row, b: Row) -> int:
    one, two = facet_keys(a), facet_keys(b)
    return sum(one[key] != two[key] for key in one)


def _position(row: Row) -> tuple[tuple[int, str], str, int, int]:
    return style.rank(row.strategy), row.label, -(row.steps or 0), row.seed
