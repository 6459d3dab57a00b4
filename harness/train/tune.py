"""From the rows of a guidance sweep to the scale that each strategy's card records."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.weights import write_card
from harness.weights.zoo import Card, read_card
from pardec.errors import UserError
from results.same_setting import differing, joining, value_of
from results.schema import Row

RULE = "the smallest Fréchet distance on the grid"
AT_ONE = {*joining(drawing=True), "decoder"} - {"guidance"}
"""Settings in which the rows of a grid are equal."""


def grids(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows of guided images with their quality, by rising scale: network -> strategy -> rows."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.status != "ok" or row.guidance is None or not row.quality:
            continue
        metrics = _metrics(row)
        if {"fd_fashion", "accuracy"} <= metrics.keys() and metrics["fd_fashion"]["value"] is not None:
            found[row.network][row.strategy].append(row)
    return {
        network: {name: sorted(grid, key=_scale) for name, grid in by_strategy.items()}
        for network, by_strategy in found.items()
    }


def _scale(row: Row) -> float:
    return float(row.guidance or 0.0)


def _metrics(row: Row) -> dict[str, Any]:
    return {name.partition("@")[0]: metric for name, metric in (row.quality or {}).items()}


def _scales(grid: Sequence[Row]) -> int:
    return len({row.guidance for row in grid})


def _entry(row: Row) -> dict[str, Any]:
    """What a card says of a row."""
    metrics = _metrics(row)
    return {
        "guidance": row.guidance,
        "guidance_schedule": row.guidance_schedule,
        "steps": row.steps,
        "options": dict(row.options),
        "images": row.images,
        "seed": row.seed,
        "fd_fashion": metrics["fd_fashion"],
        "accuracy": metrics["accuracy"],
    }


def chosen(grid: Sequence[Mapping[str, Any]]) -> float:
    """The scale by ``RULE``."""
    return float(min(grid, key=lambda entry: entry["fd_fashion"]["value"])["guidance"])


def record(rows: Sequence[Row], zoo: Path | None) -> dict[str, float]:
    """Write grid and choice into the cards; the chosen scale per network.

    UserError, before any card is written, where the rows hold no network of a zoo at several scales, and for
    rows that don't compare: of several strategies none of which owns the network, or at several settings.
    """
    found: dict[str, tuple[Card, list[Row]]] = {}
    for network, by_strategy in grids(rows).items():
        if network.startswith("zoo/") and any(_scales(grid) > 1 for grid in by_strategy.values()):
            card = read_card(network, zoo)
            grid = _deciding(card, network, by_strategy)
            if _scales(grid) > 1:
                _check_comparable(network, grid)
                found[network] = card, grid
    if not found:
        raise UserError(
            "no network with more than one guidance scale in these rows; run: pardec sweep guidance"
        )
    choices = {}
    for network, (card, measured) in found.items():
        entries = [_entry(row) for row in measured]
        choices[network] = chosen(entries)
        guidance = {"chosen": choices[network], "rule": RULE, "grid": entries}
        write_card(card.weights.with_suffix(".json"), {**card.content, "guidance": guidance})
    return choices


def _deciding(card: Card, network: str, by_strategy: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of the strategy that a network was trained for; where there are none, of the one that decodes
    it as the last of several."""
    if card.strategy in by_strategy:
        return by_strategy[card.strategy]
    several = [name for name, grid in by_strategy.items() if all(row.networks for row in grid)]
    if len(by_strategy) > 1 or not several:
        raise UserError(
            f"network '{network}' was trained for strategy '{card.strategy}', and these rows are of "
            f"{', '.join(sorted(by_strategy))}; expected rows of '{card.strategy}'"
        )
    return by_strategy[several[0]]


def _check_comparable(network: str, grid: Sequence[Row]) -> None:
    """UserError where more than the scale differs."""
    values = {name: {str(value_of(row, name)) for row in grid} for name in differing(grid) if name in AT_ONE}
    counts = {str(row.images) for row in grid}
    weights = {str([row.checkpoint, *(use["sha256"] for use in row.networks or ())]) for row in grid}
    values |= {"images": counts} if len(counts) > 1 else {}
    named = [f"{name} ({', '.join(sorted(found))})" for name, found in values.items()]
    named += ["weights"] if len(weights) > 1 else []
    if named:
        raise UserError(
            f"network '{network}': rows differ in {' and in '.join(named)}; expected a grid of scales, all "
            "else equal"
        )
