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
from reports.isoquality import Advantage, advantage, curve
from reports.measured import THROUGHPUT, best_of, measured
from reports.naming import display_name
from reports.tables import DASH, with_interval
from reports.training_noise import TrainingNoise
from results.environments import environment_keys, result_key
from results.same_setting import OF_GUIDANCE, differing, setting_key, told_apart
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


@dataclass(frozen=True)
class Iso:
    """Curves against each other: every pair, and which of its two figures are called a difference."""

    metric: str
    pairs: tuple[Advantage, ...]
    shown: tuple[tuple[bool, bool], ...]
    """(times faster, better) of every pair, at the false discovery rate over all of them."""


def iso_of(pairs: Sequence[Advantage]) -> Iso | None:
    """The pairs with what may be called a difference among all of them; None without any."""
    if not pairs:
        return None
    tested = [one for pair in pairs for one in (pair.faster, pair.better)]
    shown = discoveries([None if one is None else one.p for one in tested])
    return Iso(pairs[0].metric, tuple(pairs), tuple(zip(shown[::2], shown[1::2], strict=True)))


def iso_within(cells: Sequence[Row]) -> Iso | None:
    """Every pair of strategies in the first metric of the cells."""
    metric = next(iter(metrics(cells)), None)
    if metric is None:
        return None
    split = _curves(cells)
    curves = [found for rows in split if (found := curve(_curve_name(rows[0], split), rows, metric))]
    return iso_of([advantage(a, b, metric) for a, b in combinations(curves, 2)])


def iso_table(cells: Sequence[Row], noise: TrainingNoise, where: str = "") -> list[TextTable]:
    """``iso_within`` as a table."""
    found = iso_within(cells)
    return [] if found is None else [iso_text(found, f"Iso-quality{where}", noise.moved(found.metric, cells))]


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
        found += _advantages_between(_curves(own), _curves(other), where)
    tables = []
    for metric in dict.fromkeys(pair.metric for pair in found):
        iso = iso_of([pair for pair in found if pair.metric == metric])
        judged_rows = [
            row
            for row in (*rows_a, *rows_b)
            if row.status == "ok" and row.tier != "anchor" and measured(row, metric) is not None
        ]
        if iso is not None:
            tables.append(iso_text(iso, "Iso-quality of B against A", noise.moved(metric, judged_rows)))
    return tables


def _advantages_between(own: list[list[Row]], others: list[list[Row]], where: str) -> list[Advantage]:
    found = []
    for rows in own:
        metric = next(iter(metrics(rows)), None)
        partner = _partner(rows, own, others)
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


@dataclass(frozen=True)
class Against:
    """Every cell against ``base``: by quantity, with verdicts that hold over all that is shown."""

    base: Row
    quantities: tuple[str, ...]
    found: tuple[tuple[Row, dict[str, Difference]], ...]


def against_first(
    cells: Sequence[Row], beside: Mapping[str, Artifacts], noise: TrainingNoise
) -> Against | None:
    """The first metric, accuracy and speed of every cell against the first of its strategy's settings, or the
    best of them where several were measured; None without a second cell."""
    if len(cells) < 2:
        return None
    of_first = [row for row in cells if (row.strategy, row.label) == (cells[0].strategy, cells[0].label)]
    base = best_of(of_first, names[0]) if (names := metrics(cells)) else cells[0]
    others = [row for row in cells if row is not base]
    shown = [
        *metrics(cells)[:1],
        *(name for name in metrics(cells) if name.startswith("accuracy")),
        THROUGHPUT,
    ]
    pairs: list[tuple[Row, list[Difference]]] = []
    for row in others:
        found, _ = differences(
            base, row, beside.get(result_key(base), _NONE), beside.get(result_key(row), _NONE), noise
        )
        pairs.append((row, [one for one in found if one.name in shown]))
    remaining = iter(judged([one for _, found in pairs for one in found]))
    decided = tuple((row, {one.name: next(remaining) for one in found}) for row, found in pairs)
    return Against(base, tuple(shown), decided)


def difference_table(
    cells: Sequence[Row], beside: Mapping[str, Artifacts], noise: TrainingNoise, where: str
) -> list[TextTable]:
    """``against_first`` as a table."""
    against = against_first(cells, beside, noise)
    return [] if against is None else [against_text(against, cells, noise, where)]


def against_text(against: Against, cells: Sequence[Row], noise: TrainingNoise, where: str = "") -> TextTable:
    """The differences in words, named as among ``cells``."""
    shown = against.quantities
    lines = []
    for row, named in against.found:
        line = [display_name(row, cells)]
        for name in shown:
            line += _difference(named.get(name), timed=name == THROUGHPUT)
        lines.append(tuple(line))
    headings = ["cell"]
    for name in shown:
        headings += (
            [f"{THROUGHPUT}, ratio", "verdict"]
            if name == THROUGHPUT
            else [f"{name}, difference", "training seeds", "verdict"]
        )
    verdicts = [one for _, named in against.found for one in named.values()]
    note = f"{tally(verdicts)} {seeds_note({name: noise.moved(name, cells) for name in shown[:-1]})}"
    title = f"Against {display_name(against.base, cells)}{where}"
    return TextTable(title, tuple(headings), tuple(lines), note)


def seeds_note(moved: Mapping[str, Mapping[str, float]]) -> str:
    """What the column "training seeds" rests on: of each metric the moves by the name of their setting."""
    known = [f"{metric} moved by {_sizes(sizes)}" for metric, sizes in moved.items() if sizes]
    unknown = [metric for metric, sizes in moved.items() if not sizes]
    said = []
    if known:
        said.append(
            f"Between two training seeds {', '.join(known)}; the largest move stands beside each difference."
        )
    if unknown:
        said.append(f"How far another training seed moves {' and '.join(unknown)} is not known.")
    return " ".join(said)


def _sizes(moved: Mapping[str, float]) -> str:
    return "; ".join(f"{size:.3g} ({name})" for name, size in moved.items())


def _difference(one: Difference | None, timed: bool) -> list[str]:
    if one is None:
        return [DASH] * (2 if timed else 3)
    if one.ratio is not None:
        return [with_interval(one.ratio.value, one.ratio.low, one.ratio.high), one.words]
    return [with_interval(one.change, one.low, one.high), one.training_text, one.words]


def iso_text(iso: Iso, title: str, moved: Mapping[str, float]) -> TextTable:
    """The pairs in words; ``moved`` as ``TrainingNoise`` knows it."""
    lines = []
    for pair, (faster_shown, better_shown) in zip(iso.pairs, iso.shown, strict=True):
        lines.append(
            (
                f"{pair.b.label} against {pair.a.label}",
                *_columns(pair.faster, pair.qualities, 1.0, faster_shown, ("faster", "slower")),
                *_columns(pair.better, pair.times_s, 0.0, better_shown, _words(pair)),
                f"± {max(moved.values()):.3g}" if moved and pair.better is not None else DASH,
                pair.why,
            )
        )
    tested = [one for pair in iso.pairs for one in (pair.faster, pair.better)]
    count = sum(one is not None and one.p is not None for one in tested)
    note = (
        f"Curves over steps and guidance, in {iso.metric} and seconds per image. {count} comparisons, "
        f"{sum(map(sum, iso.shown))} called a difference; at most {100 * FALSE_DISCOVERY_RATE:g} % of those "
        "are expected to be false (Benjamini-Hochberg). A curve of one cell is compared at its point alone. "
        + seeds_note({iso.metric: moved})
    )
    return TextTable(f"{title}: {iso.metric}", ISO_HEADINGS, tuple(lines), note)


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


def _curves(cells: Iterable[Row]) -> list[list[Row]]:
    """Cells that differ in steps and guidance alone.

    Those without guidance belong to every curve of their other settings: each has its end at no guidance.
    """
    alike: dict[str, list[Row]] = {}
    for row in cells:
        if row.tier != "anchor":
            key = f"{row.label} {setting_key(row, but_for=(*_ALONG_A_CURVE, *OF_GUIDANCE))}"
            alike.setdefault(key, []).append(row)
    return [curve for rows in alike.values() for curve in _by_guidance(rows)]


def _by_guidance(rows: Sequence[Row]) -> list[list[Row]]:
    """Cells alike but for steps and guidance, split by what guided ones have besides a scale; those first."""
    unguided = [row for row in rows if row.guidance is None]
    guided: dict[str, list[Row]] = {}
    for row in rows:
        if row.guidance is not None:
            guided.setdefault(setting_key(row, but_for=_ALONG_A_CURVE), []).append(row)
    return [[*curve, *unguided] for curve in guided.values()] or [unguided]


def _curve_name(row: Row, curves: Iterable[Sequence[Row]]) -> str:
    """The label of the curve's cells, and in what the other curves of that label differ from it."""
    names = differing(rows[0] for rows in curves if rows[0].label == row.label)
    told = told_apart(row, [name for name in names if name not in _ALONG_A_CURVE])
    return ", ".join([row.label, *told])


def _partner(
    rows: Sequence[Row], own: Iterable[Sequence[Row]], others: Iterable[Sequence[Row]]
) -> Sequence[Row] | None:
    """The other side's curve of these rows: of their first one's setting, else of any of theirs, else the
    only one but for network and seed."""

    def alike(
        curves: Iterable[Sequence[Row]], but_for: tuple[str, ...], first: int | None
    ) -> list[Sequence[Row]]:
        """Curves with a setting in common, by so many of their first cells."""
        keys = {setting_key(row, but_for) for row in rows[:first]}
        same = [found for found in curves if found[0].label == rows[0].label]
        return [found for found in same if keys & {setting_key(row, but_for) for row in found[:first]}]

    for first in (1, None):
        if exact := alike(others, _ALONG_A_CURVE, first):
            return exact[0]
    loose = (*_ALONG_A_CURVE, "network", "seed")
    rivals = alike(others, loose, 1)
    return rivals[0] if len(rivals) == len(alike(own, loose, 1)) == 1 else None
