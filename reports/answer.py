"""The answer in sentences: what a facet's rows say about speed at equal quality, and what they can't say.

At most five sentences, each with a link to what it rests on; where something is missing, with the command
that gives it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from reports.contests import Against, Iso
from reports.differences import Difference
from reports.frame import Facet, metrics
from reports.isoquality import Advantage
from reports.measured import THROUGHPUT
from reports.naming import counted_text, display_name
from reports.tables import ROUNDING_BITS, printed_bits, with_interval
from results.environments import result_key
from results.schema import RANDOM_WEIGHTS, Row

MOST = 5
CURVES = "pardec sweep iso-quality"
"""Measures curves over steps and guidance, which equal quality needs."""
SCORED = "pardec sweep imagenet256 --checkpoints DIR --reference FILE"


@dataclass(frozen=True)
class Sentence:
    """A finding; ``evidence`` is the page's part it rests on, ``command`` gives what is missing."""

    text: str
    evidence: str
    command: str | None = None


def answer(
    facet: Facet,
    cells: Sequence[Row],
    iso: Iso | None,
    against: Against | None,
    declared: Collection[str] = (),
) -> list[Sentence]:
    """The sentences of a facet, most important first, from its ok ``cells`` of one batch size.

    declared: ``result_key`` of the cells whose methods are lossless by declaration.
    """
    if not cells:
        return [Sentence("Nothing can be said: no cell was measured.", "numbers")]
    metric = next(iter(metrics(cells)), None)
    if metric is None:
        return [*_speed_alone(cells, against), _no_quality(cells)]
    found = [
        _equal_quality(iso),
        _at_points(against, cells, metric),
        _lossless(facet, against, declared),
        _worse(against, cells, metric),
    ]
    told = [one for one in found if one is not None]
    return [*told, *_unsaid(None if any(one.command for one in told) else iso, facet)][:MOST]


def _equal_quality(iso: Iso | None) -> Sentence | None:
    """The fastest at equal quality against the first curve."""
    if iso is None:
        text = "With one curve there is nothing to compare at equal quality; more strategies are in"
        return Sentence(text, "iso", CURVES)
    base = iso.pairs[0].a.label
    defined = [pair for pair in iso.pairs if pair.a.label == base and pair.faster is not None]
    if not defined:
        few = _few_settings(iso)
        why = "with so few settings each, no two curves meet" if few else "no curve reaches its range"
        text = f"Nothing can be said at equal {iso.metric} against {base} yet: {why}. Curves come from"
        return Sentence(text, "iso", CURVES)
    differing = [pair for pair, (shown, _) in zip(iso.pairs, iso.shown, strict=True) if shown]
    sure = [pair for pair in defined if pair in differing]
    best = max((pair for pair in sure if _speed_up(pair) > 1), key=_speed_up, default=None)
    if best is not None:
        text = f"At equal {iso.metric}, {best.b.label} is {_times(best)} times as fast as {base}."
        return Sentence(text, "iso")
    best = max(defined, key=_speed_up)
    text = f"At equal {iso.metric} no strategy is shown to be faster than {base}: "
    return Sentence(f"{text}{best.b.label} comes to {_times(best)} times its speed.", "iso")


def _speed_up(pair: Advantage) -> float:
    return 0.0 if pair.faster is None else pair.faster.value


def _times(pair: Advantage) -> str:
    assert pair.faster is not None
    one = pair.faster
    return with_interval(one.value, one.low, one.high).replace("(n=1)", "(no interval)")


def _at_points(against: Against | None, cells: Sequence[Row], metric: str) -> Sentence | None:
    """The fastest setting whose quality isn't shown to be worse than the first cell's."""
    good = [
        (row, named)
        for row, named in _faster(against)
        if metric in named and named[metric].verdict != "worse"
    ]
    if against is None or not good:
        return None
    row, named = max(good, key=lambda one: _ratio(one[1]))
    change = named[metric]
    words = "better" if change.verdict == "better" else "not shown to differ"
    text = (
        f"At the measured settings {display_name(row, cells)} decodes {_ratio_text(named)} times as many "
        f"images a second as {display_name(against.base, cells)}; its {metric} is {words} "
        f"({_signed(change)})."
    )
    return Sentence(text, "against")


def _worse(against: Against | None, cells: Sequence[Row], metric: str) -> Sentence | None:
    """The fastest setting of all, where its quality is worse."""
    timed = [(row, named) for row, named in _faster(against) if metric in named]
    if against is None or not timed:
        return None
    row, named = max(timed, key=lambda one: _ratio(one[1]))
    change = named[metric]
    if change.verdict != "worse":
        return None
    text = (
        f"The fastest, {display_name(row, cells)} at {_ratio_text(named)} times the speed of "
        f"{display_name(against.base, cells)}, is worse: {metric} {_signed(change)}."
    )
    return Sentence(text, "against")


def _lossless(facet: Facet, against: Against | None, declared: Collection[str]) -> Sentence | None:
    """What loses no bits, measured or declared, in fewer steps than raster, which takes one a token, and what
    that saves; None without raster."""
    cells = [row for row in facet.cells if row.status == "ok" and row.steps and row.acceptance is None]
    most = max((row.steps or 0 for row in cells if row.strategy == "raster"), default=0)
    fewer = [row for row in cells if (row.steps or 0) < most]
    exact = [row for row in fewer if _is_lossless(row, declared)]
    judged = [row for row in fewer if _bits(row) is not None]
    if exact:
        best = sorted(exact, key=lambda row: row.steps or 0)[:2]
        said = "; ".join(_saved(row, most, against, cells) for row in best)
        return Sentence(f"Lossless: {said}.", "methods")
    if not judged:
        return None
    ends = {row.cell: row for row in (min(judged, key=_lost_bits), max(judged, key=_lost_bits))}
    spans = [f"{_lost_text(row)} ({display_name(row, cells)})" for row in ends.values()]
    return Sentence(
        f"Nothing that saves steps is lossless here: bits lost per image go from {' to '.join(spans)}, each "
        "judged by its own network.",
        "quality",
    )


def _is_lossless(row: Row, declared: Collection[str]) -> bool:
    bits = _bits(row)
    return result_key(row) in declared if bits is None else abs(bits) <= ROUNDING_BITS


def _saved(row: Row, most: float, against: Against | None, cells: Sequence[Row]) -> str:
    """The steps of a lossless cell, and its speed where the first cell's is known at its batch size."""
    text = f"{row.label} in {counted_text(row.steps or 0)} instead of {counted_text(most)} steps"
    named = {} if against is None else {one.cell: found for one, found in against.found}.get(row.cell, {})
    if against is None or THROUGHPUT not in named:
        return text
    return f"{text}, {_ratio_text(named)} times the speed of {display_name(against.base, cells)}"


def _few_settings(iso: Iso) -> bool:
    """Whether every curve is of so few cells that more of them would help."""
    return max(len(one.quality) for pair in iso.pairs for one in (pair.a, pair.b)) < 4


def _unsaid(iso: Iso | None, facet: Facet) -> list[Sentence]:
    """Pairs without a figure, failures, times without an interval; ``iso``: unless that was said before."""
    parts: list[str] = []
    evidence, command = "numbers", None
    if iso is not None:
        open_pairs = sum(pair.faster is None for pair in iso.pairs)
        if open_pairs:
            parts.append(f"{open_pairs} of {len(iso.pairs)} pairs have no figure at equal quality")
            evidence, command = "iso", CURVES if _few_settings(iso) else None
    failed = sum(row.status != "ok" for row in facet.rows)
    if failed:
        parts.append(f"{failed} of {len(facet.rows)} cells failed")
    once = sum(row.status == "ok" and row.throughput_interval is None for row in facet.cells)
    if once:
        cells = (
            "cell was timed once, so its speed has"
            if once == 1
            else "cells were timed once, so their speeds have"
        )
        parts.append(f"{once} {cells} no interval")
    if not parts:
        return []
    ending = " More settings give curves that meet:" if command else ""
    text = f"What can't be said: {'; '.join(parts)}.{ending}"
    return [Sentence(text, evidence, command)]


def _speed_alone(cells: Sequence[Row], against: Against | None) -> list[Sentence]:
    if against is None:
        return []
    timed = _faster(against) or [(row, named) for row, named in against.found if THROUGHPUT in named]
    row, named = max(timed, key=lambda one: _ratio(one[1]), default=(against.base, {}))
    if THROUGHPUT not in named:
        return []
    text = (
        f"{display_name(row, cells)} decodes {_ratio_text(named)} times as many images a second as "
        f"{display_name(against.base, cells)}"
    )
    unbounded = named[THROUGHPUT].p is None
    return [Sentence(f"{text}; timed once, so nothing bounds that." if unbounded else f"{text}.", "cost")]


def _no_quality(cells: Sequence[Row]) -> Sentence:
    if all(row.checkpoint == RANDOM_WEIGHTS for row in cells):
        why = "the weights are random"
    else:
        why = "no images were judged"
    return Sentence(
        f"Nothing can be said about quality, for {why}. With weights and a reference:", "quality", SCORED
    )


def _faster(against: Against | None) -> list[tuple[Row, dict[str, Difference]]]:
    """Cells whose speed is shown to be above the first one's."""
    if against is None:
        return []
    return [
        (row, named)
        for row, named in against.found
        if THROUGHPUT in named and named[THROUGHPUT].verdict == "better"
    ]


def _ratio(named: Mapping[str, Difference]) -> float:
    ratio = named[THROUGHPUT].ratio
    return 0.0 if ratio is None else ratio.value


def _ratio_text(named: Mapping[str, Difference]) -> str:
    ratio = named[THROUGHPUT].ratio
    assert ratio is not None
    return with_interval(ratio.value, ratio.low, ratio.high)


def _signed(change: Difference) -> str:
    sign = "+" if change.change > 0 else ""
    return sign + with_interval(change.change, change.low, change.high)


def _bits(row: Row) -> float | None:
    return None if row.lossiness_bits is None else row.lossiness_bits["value"]


def _lost_bits(row: Row) -> float:
    return _bits(row) or 0.0


def _lost_text(row: Row) -> str:
    lost = row.lossiness_bits
    assert lost is not None
    assert lost["value"] is not None
    return printed_bits(lost["value"], lost["low"], lost["high"])
