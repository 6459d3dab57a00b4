"""A card for each method: what its class declares, as the worker stored it, beside what was measured."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reports import style
from reports.naming import display_name
from reports.tables import ROUNDING_BITS, printed_bits
from results.environments import result_key
from results.schema import Row

_MOST = 200
"""Characters of a stored text that a card shows."""
_TRAITS = {
    "any_order": "decodes any order, so it takes given tokens",
    "revises": "may overwrite a token",
    "empty_context": "attends to cache slots not yet filled",
}


@dataclass(frozen=True)
class Card:
    """What the page shows of a method: (word, text) pairs under its idea."""

    strategy: str
    title: str
    idea: str
    facts: tuple[tuple[str, str], ...]


def cards(rows: Iterable[Row], stored: Mapping[str, Mapping[str, Any]]) -> list[Card]:
    """A card per strategy of the rows; ``stored``: by ``result_key``, as ``load_method`` reads it."""
    of_strategy: dict[str, list[Row]] = {}
    for row in rows:
        if row.tier != "anchor":
            of_strategy.setdefault(row.strategy, []).append(row)
    found = []
    for strategy, own in sorted(of_strategy.items(), key=lambda item: style.rank(item[0])):
        card = next((stored[key] for row in own if (key := result_key(row)) in stored), {})
        idea, paper = _idea(card)
        title = _text(card, "title") or style.title(strategy)
        found.append(Card(strategy, title, idea, tuple(_facts(card, own, paper))))
    return found


def lossless(stored: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Keys of the cells whose methods are lossless by declaration."""
    return {key for key, card in stored.items() if _traits(card).get("lossless") is True}


def _idea(card: Mapping[str, Any]) -> tuple[str, str]:
    """The one-sentence idea, and the paper: "NAME: idea (authors, arXiv id)." """
    said, paper = _text(card, "idea"), _text(card, "paper")
    idea = said.partition(": ")[2] or said
    head, _, tail = idea.rstrip(".").rpartition(" (")
    if head and paper and paper in tail:
        idea, paper = f"{head}.", tail.rstrip(")")
    elif paper[:1].isdigit():
        paper = f"arXiv {paper}"
    return idea[:1].upper() + idea[1:], paper


def _facts(card: Mapping[str, Any], rows: list[Row], paper: str) -> Iterable[tuple[str, str]]:
    if not card:
        yield "card", "not stored with these rows; a sweep of this version stores one"
    if paper:
        yield "paper", paper
    if kind := _text(card, "kind"):
        yield "kind", kind
    if card:
        base = _text(card, "base")
        yield (
            "training",
            f"none: decodes the network of {style.title(base)}" if base else "a network of its own",
        )
    yield "lossless", _lossless(card, rows)
    yield "networks", _networks(rows)
    yield "cache", _cache(card, rows)
    if card:
        yield "steps", "; ".join(_steps(card)) or "unknown"
        if decides := _text(card, "decides"):
            yield "decided by", decides
        if traits := [words for name, words in _TRAITS.items() if _traits(card).get(name) is True]:
            yield "traits", "; ".join(traits)
        if "batch_exact" not in _traits(card):
            yield "batches", "differ from their images one by one"


def _lossless(card: Mapping[str, Any], rows: list[Row]) -> str:
    """Declared, measured, or neither."""
    judged = [
        row for row in rows if row.lossiness_bits is not None and row.lossiness_bits["value"] is not None
    ]
    bits = sorted(judged, key=lambda row: abs(_bits(row)))
    if _traits(card).get("lossless") is True:
        measured = f"; measured {_printed(bits[-1])} bits an image" if bits else ""
        return f"exact by declaration, which a check holds it to{measured}"
    if not bits:
        return "lossy or not: not measured here" if not card else "not declared, not measured here"
    if abs(_bits(bits[-1])) <= ROUNDING_BITS:
        return f"measured: {_printed(bits[-1])} bits an image"
    ends = dict.fromkeys(f"{_printed(row)} ({display_name(row, rows)})" for row in (bits[0], bits[-1]))
    return f"lossy, bits an image: {' to '.join(ends)}"


def _networks(rows: list[Row]) -> str:
    row = rows[0]
    if row.networks:
        return ", ".join(f"{use['role']} {use['parameters'] / 1e6:,.4g} M" for use in row.networks)
    return "1" if row.parameters is None else f"1, of {row.parameters / 1e6:,.4g} M parameters"


def _cache(card: Mapping[str, Any], rows: list[Row]) -> str:
    sized = next((row for row in rows if row.cache_bytes), None)
    parts = _cache_shapes(card.get("cache"))
    if sized is not None and sized.cache_bytes is not None:
        parts.append(f"{sized.cache_bytes / 1e6:,.4g} MB at batch {sized.batch}")
    return "; ".join(parts) or "unknown"


def _cache_shapes(cache: Any) -> list[str]:
    """Of each network's cache, the role before it where there are several; of a damaged card none."""
    found = {"network": cache} if isinstance(cache, dict) and "layers" in cache else cache  # of an older card
    shapes = found if isinstance(found, dict) else {}
    if not all(
        isinstance(shape, dict) and all(isinstance(shape.get(name), int) for name in ("layers", "slots"))
        for shape in shapes.values()
    ):
        return []
    texts = {
        str(role)[:_MOST]: f"{shape['layers']} layers of {shape['slots']} slots" if shape["slots"] else "none"
        for role, shape in shapes.items()
    }
    return [text if len(texts) == 1 else f"{role}: {text}" for role, text in texts.items()]


def _steps(card: Mapping[str, Any]) -> Iterable[str]:
    steps = card.get("steps")
    for grid, span in (steps if isinstance(steps, dict) else {}).items():
        if isinstance(span, list) and len(span) == 2 and all(isinstance(one, int) for one in span):
            low, high = span
            yield f"{str(grid)[:12].replace('x', ' × ')}: " + (
                f"{low}" if low == high else f"{low} to {high}"
            )


def _bits(row: Row) -> float:
    return (row.lossiness_bits or {"value": 0.0})["value"] or 0.0


def _printed(row: Row) -> str:
    lost = row.lossiness_bits
    assert lost is not None
    return printed_bits(lost["value"] or 0.0, lost["low"], lost["high"])


def _traits(card: Mapping[str, Any]) -> Mapping[str, Any]:
    found = card.get("traits")
    return found if isinstance(found, dict) else {}


def _text(card: Mapping[str, Any], name: str) -> str:
    value = card.get(name)
    return value[:_MOST] if isinstance(value, str) else ""
