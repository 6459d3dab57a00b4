"""The table of what held-out images cost stored networks, in bits per token."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.cell.cell import RANDOM, ZOO_PREFIX, Cell, checked, normalised
from harness.commands.common import overrides
from harness.lossiness.conditionals import Undefined
from harness.lossiness.likelihood import Cost, Shown, cost, ensemble, shown, why_undefined
from harness.lossiness.worlds import OWN, RULES
from harness.machine.terminal import progress_bar
from harness.subject.prepare import prepare
from harness.subject.subject import Subject, load
from harness.sweep.find import find_cell
from harness.weights import zoo
from pardec.errors import UserError, unknown
from pardec.files import write_whole
from pardec.hashing import file_sha256
from reports.fitting import DASH
from reports.tables import print_plain, with_interval

HEADINGS = ("network", "steps", "order", "bits per token", "against the first")
_NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": None}
"""Settings under which a decoder draws what its network says."""


def likelihood(options: argparse.Namespace) -> int:
    if options.images < 1:
        raise UserError(f"--images {options.images}: expected at least 1")
    if options.out is not None and not options.out.parent.is_dir():
        raise UserError(f"--out '{options.out}': no folder '{options.out.parent}'")
    for rule in options.orders or ():
        if rule not in (OWN, *RULES):
            raise unknown("order", rule, (OWN, *RULES), "--orders")
    changes = overrides(options)
    if options.data is not None:
        changes["data"] = checked("data", options.data, "--data")
    named = [find_cell(text, changes, None) for text in options.cells] or _all_stored(changes)
    lines: list[dict[str, Any]] = []
    with progress_bar() as bar:
        for cell in named:
            task = bar.add_task(cell.network or cell.strategy, total=1.0)
            lines += _judged(
                cell,
                options,
                lambda share, task=task: bar.update(task, completed=share),  # type: ignore[misc]
                alone=bool(options.cells),
            )
    print_plain(HEADINGS, [_cells(line) for line in lines])
    print(
        "-log2 of the probability with which held-out images are decoded, each of its own class; "
        "95 % intervals over images, differences paired. An ensemble draws one of the orders above it."
    )
    if options.out is not None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        write_whole(options.out, lambda file: file.write(text.encode()))
    return 0


def _all_stored(changes: dict[str, Any]) -> list[Cell]:
    """A cell of each network of the zoo."""
    cards = [zoo.read_card(name, changes.get("zoo")) for name in zoo.names(changes.get("zoo"))]
    return [
        normalised(Cell(**{"strategy": card.strategy, "network": ZOO_PREFIX + card.name, **changes}))
        for card in cards
    ]


def _judged(
    cell: Cell, options: argparse.Namespace, report: Callable[[float], None], alone: bool
) -> list[dict[str, Any]]:
    """Lines of one network; where it is one of many, a line says why it has no figure."""
    if cell.is_anchor:
        raise UserError(f"cell '{cell.strategy}': an anchor decodes nothing")
    for key, neutral in _NEUTRAL.items():
        if getattr(cell, key) != neutral:
            where = f"cell '{cell.describe()}': {key} = {getattr(cell, key)}"
            raise UserError(f"{where}: the likelihood is the network's own; expected {neutral}")
    prepared = prepare(cell)
    why = why_undefined(prepared.strategy, prepared.plan([0]))
    if why is not None:
        if alone:
            raise UserError(f"cell '{cell.describe()}': {why}")
        return [{"network": prepared.cell.network, "order": OWN, "undefined": why}]
    torch.set_num_threads(cell.threads)
    subject = load(prepared)
    seen = shown(subject, options.images)
    costs, lines = _in_orders(subject, seen, options.orders, report)
    if not costs and alone:
        raise UserError(f"cell '{cell.describe()}': {lines[0]['undefined']}")
    if len(costs) > 1:
        costs.append(ensemble(costs, prepared.config.places))
    return [_line(subject, seen, one, costs[0]) for one in costs] + lines


def _in_orders(
    subject: Subject, seen: Shown, asked: Sequence[str] | None, report: Callable[[float], None]
) -> tuple[list[Cost], list[dict[str, Any]]]:
    """Costs by order, and lines of the orders that the network can't be given."""
    rules = [OWN]
    if subject.prepared.strategy.any_order:
        rules = list(dict.fromkeys(asked or RULES))
    costs, lines = [], []
    for number, rule in enumerate(rules):
        try:
            costs.append(
                cost(subject, seen, rule, lambda share, done=number: report((done + share) / len(rules)))  # type: ignore[misc]
            )
        except (Undefined, UserError) as error:
            lines.append({"network": subject.prepared.cell.network, "order": rule, "undefined": str(error)})
    return costs, lines


def _line(subject: Subject, seen: Shown, found: Cost, first: Cost) -> dict[str, Any]:
    cell, places = subject.prepared.cell, subject.prepared.config.places
    value, low, high = found.mean
    line: dict[str, Any] = {
        "network": cell.network,
        "strategy": cell.strategy,
        "options": dict(cell.options),
        "order": found.order,
        "steps": cell.steps,
        "bits_per_token": value,
        "bits_per_token_low": low,
        "bits_per_token_high": high,
        "images": len(found.bits),
        "places": places,
        "codes": subject.prepared.config.codes,
        "data": cell.data,
        "held_out_sha256": seen.dataset.sha256,
        "weights_sha256": _weights_sha256(cell),
        "seed": cell.seed,
    }
    contrast = None if found is first else found.against(first)
    if contrast is not None:
        line |= {
            "more_than_first": contrast.value,
            "more_than_first_low": contrast.low,
            "more_than_first_high": contrast.high,
        }
    return line


def _weights_sha256(cell: Cell) -> str | None:
    """Of the file of the weights; None for random ones."""
    if cell.checkpoint == RANDOM:
        return None
    own = Path(cell.checkpoint) if cell.checkpoint else zoo.read_card(cell.network, cell.zoo).weights
    return file_sha256(own)


def _cells(line: dict[str, Any]) -> list[str]:
    if "undefined" in line:
        return [line["network"], DASH, line["order"], DASH, f"undefined: {line['undefined']}"]
    against = DASH
    if "more_than_first" in line:
        against = with_interval(*(line[f"more_than_first{end}"] for end in ("", "_low", "_high")))
    bits = with_interval(*(line[f"bits_per_token{end}"] for end in ("", "_low", "_high")))
    return [line["network"], str(line["steps"]), line["order"], bits, against]
