"""From the rows of a guidance sweep to the scale that each strategy's card records."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.weights import write_card
from harness.weights.zoo import read_card
from pardec.errors import UserError
from results.schema import Row

RULE = "the smallest Fréchet distance on the grid"


def grids(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Measured settings per zoo network, by rising scale: scale, schedule, steps, distance, accuracy."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row.status != "ok" or row.guidance is None or not row.quality:
            continue
        metrics = {name.partition("@")[0]: metric for name, metric in row.quality.items()}
        if not {"fd_fashion", "accuracy"} <= metrics.keys() or metrics["fd_fashion"]["value"] is None:
            continue
        found[row.network].append(
            {
                "guidance": row.guidance,
                "guidance_schedule": row.guidance_schedule,
                "steps": row.steps,
                "options": dict(row.options),
                "images": row.images,
                "seed": row.seed,
                "fd_fashion": metrics["fd_fashion"],
                "accuracy": metrics["accuracy"],
            }
        )
    return {network: sorted(grid, key=lambda entry: entry["guidance"]) for network, grid in found.items()}


def chosen(grid: Sequence[Mapping[str, Any]]) -> float:
    """The scale by ``RULE``."""
    return float(min(grid, key=lambda entry: entry["fd_fashion"]["value"])["guidance"])


def record(rows: Sequence[Row], zoo: Path | None) -> dict[str, float]:
    """Write grid and choice into the cards; the chosen scale per network.

    Raises UserError where the rows hold no guided zoo network.
    """
    found = {
        network: grid for network, grid in grids(rows).items() if network.startswith("zoo/") and len(grid) > 1
    }
    if not found:
        raise UserError(
            "no network with more than one guidance scale in these rows; run: pardec sweep guidance"
        )
    choices = {}
    for network, grid in found.items():
        card = read_card(network, zoo)
        choices[network] = chosen(grid)
        guidance = {"chosen": choices[network], "rule": RULE, "grid": grid}
        write_card(card.weights.with_suffix(".json"), {**card.content, "guidance": guidance})
    return choices
