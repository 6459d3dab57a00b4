"""Strategies of one facet against each other: iso-quality speed-ups, and every cell against the first.

These head a report, for a single-point speed-up says nothing of the quality it was bought with.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from reports.artifacts import Artifacts
from reports.comparability import Incomparable, lower_is_better
from reports.differences import Difference, differences, judged, tally
from reports.frame import Facet, metrics
from reports.inference import FALSE_DISCOVERY_RATE, Contrast, discoveries
from reports.isoquality import TIME, Advantage, advantage, curve
from reports.naming import display_name
from reports.tables import DASH, with_interval
from reports.training_noise import TrainingNoise
from results.environments import environment_keys, result_key
from results.same_setting import differing, setting_key, told_apart
from results.schema import Row

_NONE = Artifacts()
_ALONG_A_CURVE = ("steps", "guidance")
ISO_HEADINGS = (
    "B against A",
    "times faster at equal quality",
    "over",
    "verdict",
    "better at equal time",
    "over s/image",
    "verdict",
    "training seeds",
    "remarks",
)


@dataclass(frozen=True)
class TextTable:
    """A table of finished text, and the note that belongs below it."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str


def contests(facet: Facet, beside: Mapping[str, Artifacts], noise: TrainingNoise) -> list[TextTable]:
    """The tables of a facet, once for each batch size of its cells; none where nothing can be compared."""
    found: list[TextTable] = []
    parts = facet.by_batch()
    for part in parts:
        cells = [row for row in part.cells if row.status == "ok"]
        where = f", batch {cells[0].batch}" if len(parts) > 1 and cells else ""
        found += iso_table(cells, noise, where) + difference_table(cells, beside, noise, where)
    return found


def iso_table(cells: Sequence[Row], noise: TrainingNoise, where: str = "") -> list[TextTable]:
    """Every pair of strategies in the first metric of the cells."""
    metric = next(iter(metrics(cells)), None)
    if metric is None:
        return []
    split = _curves(cells).values()
    curves = [found for rows in split if (found := curve(_curve_name(rows[0], split), rows, metric))]
    pairs = [advantage(a, b, metric) for a, b in combinations(curves, 2)]
    return _iso(pairs, f"Iso-quality{where}", noise.moved(metric, cells))


def iso_table_between(rows_a: Sequence[Row], rows_b: Sequence[Row], noise: TrainingNoise) -> list[TextTable]:
    """B's curve against A's for every strategy that both results hold comparably, machine by machine."""
    sides_of: dict[str, tuple[list[Row], list[Row]]] = {}
    for side, rows in enumerate((rows_a, rows_b)):
        for row in rows:
            if row.status == "ok":
                hardware = environment_keys(row)["hardware"]
                sides_of.setdefault(hardware, ([], []))[side].append(row)
    found = []
    for hardware, (own, other) in sides_of.items():
        where = f", {hardware}" if len(sides_of) > 1 else ""
        found += _advantages_between(list(_curves(own).values()), list(_curves(other).values()), where)
    moved = noise.moved(found[0].metric, [*rows_a, *rows_b]) if found else {}
    return _iso(found, "Iso-quality of B against A", moved)


def _advantages_between(own: list[list[Row]], others: list[list[Row]], where: str) -> list[Advantage]:
    found = []
    for rows in own:
        metric = next(iter(metrics(rows)), None)
        partner = _partner(rows[0], own, others)
        if metric is None or partner is None:
            continue
        label = _curve_name(rows[0], [*own, *others])
        try:
            curve(label, [*rows, *partner], metric)  # one curve is comparable in itself
            a = curve(f"{label} (A{where})", rows, metric)
            b = curve(f"{label} (B{where})", partner, metric)
        except Incomparable:
            continue  # the pairs of cells say which keys differ
        if a is not None and b is not None:
            found.append(advantage(a, b, metric))
    return found


def difference_table(
    cells: Sequence[Row], beside: Mapping[str, Artifacts], noise: TrainingNoise, where: str
) -> list[TextTable]:
    """Every cell against the first one: the first metric, accuracy, and the ratio of speeds."""
    if len(cells) < 2:
        return []
    base, others = cells[0], cells[1:]
    shown = [*metrics(cells)[:1], *(name for name in metrics(cells) if name.startswith("accuracy")), TIME]
    pairs: list[tuple[Row, dict[str, Difference]]] = []
    for row in others:
        found, _ = differences(
            base, row, beside.get(result_key(base), _NONE), beside.get(result_key(row), _NONE), noise
        )
        pairs.append((row, {one.name: one for one in found if one.name in shown}))
    verdicts = judged([one for _, found in pairs for one in found.values()])
    remaining = iter(verdicts)
    lines = []
    for row, named in pairs:
        decided = {name: next(remaining) for name in named}
        line = [display_name(row, cells)]
        for name in shown:
            line += _difference(decided.get(name), timed=name == TIME)
        lines.append(tuple(line))
    headings = ["cell"]
    for name in shown:
        headings += (
            [f"{TIME}, ratio", "verdict"]
            if name == TIME
            else [f"{name}, difference", "training seeds", "verdict"]
        )
    note = " ".join([tally(verdicts), *(seeds_note(name, noise.moved(name, cells)) for name in shown[:-1])])
    return [TextTable(f"Against {display_name(base, cells)}{where}", tuple(headings), tuple(lines), note)]


def seeds_note(metric: str, moved: Mapping[str, float]) -> str:
    """What the column "training seeds" rests on."""
    if not moved:
        return f"How far another training seed moves {metric} is not known."
    sizes = "; ".join(f"{size:.3g} ({name})" for name, size in moved.items())
    return f"Between two training seeds {metric} moved by {sizes}; the largest stands beside each difference."


def _difference(one: Difference | None, timed: bool) -> list[str]:
    if one is None:
        return [DASH] * (2 if timed else 3)
    if one.ratio is not None:
        return [with_interval(one.ratio.value, one.ratio.low, one.ratio.high), one.words]
    return [with_interval(one.change, one.low, one.high), one.training_text, one.words]


def _iso(found: Sequence[Advantage], title: str, moved: Mapping[str, float]) -> list[TextTable]:
    if not found:
        return []
    tested = [one for pair in found for one in (pair.faster, pair.better)]
    shown = discoveries([None if one is None else one.p for one in tested])
    lines = []
    for number, pair in enumerate(found):
        faster_shown, better_shown = shown[2 * number], shown[2 * number + 1]
        lines.append(
            (
                f"{pair.b.label} against {pair.a.label}",
                *_columns(pair.faster, pair.qualities, 1.0, faster_shown, ("faster", "slower")),
                *_columns(pair.better, pair.times_s, 0.0, better_shown, _words(pair)),
                f"± {max(moved.values()):.3g}" if moved and pair.better is not None else DASH,
                pair.why,
            )
        )
    count = sum(one is not None and one.p is not None for one in tested)
    metric = found[0].metric
    note = (
        f"Curves over steps and guidance, in {metric} and seconds per image. {count} comparisons, "
        f"{sum(shown)} called a difference; at most {100 * FALSE_DISCOVERY_RATE:g} % of those are "
        "expected to be false (Benjamini-Hochberg). A curve of one cell is compared at its point alone. "
        + seeds_note(metric, moved)
    )
    return [TextTable(f"{title}: {metric}", ISO_HEADINGS, tuple(lines), note)]


def _words(pair: Advantage) -> tuple[str, str]:
    """(above zero, below zero) for the metric of B - A."""
    return ("worse", "better") if lower_is_better(pair.metric) else ("better", "worse")


def _columns(
    one: Contrast | None,
    over: tuple[float, float] | None,
    neutral: float,
    shown: bool,
    words: tuple[str, str],
) -> tuple[str, str, str]:
    if one is None or over is None:
        return "undefined", DASH, DASH
    span = f"{over[0]:.3g}" if over[0] == over[1] else f"{over[0]:.3g} to {over[1]:.3g}"
    verdict = "no difference shown"
    if shown:
        verdict = words[0] if one.value > neutral else words[1]
    # Not measured once: measured, but its overlap is too uncertain to bound it.
    return with_interval(one.value, one.low, one.high).replace("(n=1)", "(no interval)"), span, verdict


def _curves(cells: Iterable[Row]) -> dict[str, list[Row]]:
    """Cells that differ in steps and guidance alone, by what they have in common."""
    found: dict[str, list[Row]] = {}
    for row in cells:
        if row.tier != "anchor":
            key = f"{row.label} {setting_key(row, but_for=_ALONG_A_CURVE)}"
            found.setdefault(key, []).append(row)
    return found


def _curve_name(row: Row, curves: Iterable[Sequence[Row]]) -> str:
    """The label of the curve's cells, and in what the other curves of that label differ from it."""
    names = differing(rows[0] for rows in curves if rows[0].label == row.label)
    told = told_apart(row, [name for name in names if name not in _ALONG_A_CURVE])
    return ", ".join([row.label, *told])


def _partner(row: Row, own: Iterable[Sequence[Row]], others: Iterable[Sequence[Row]]) -> Sequence[Row] | None:
    """The other side's curve of the row's: of the same setting, or the only one but for network and seed."""

    def alike(curves: Iterable[Sequence[Row]], but_for: tuple[str, ...]) -> list[Sequence[Row]]:
        key = setting_key(row, but_for)
        return [
            rows for rows in curves if rows[0].label == row.label and setting_key(rows[0], but_for) == key
        ]

    exact, loose = alike(others, _ALONG_A_CURVE), (*_ALONG_A_CURVE, "network", "seed")
    if exact:
        return exact[0]
    rivals = alike(others, loose)
    return rivals[0] if len(rivals) == len(alike(own, loose)) == 1 else None
