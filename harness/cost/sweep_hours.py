"""How long a sweep will decode, by the card of the machine or a named one."""

import math
from collections.abc import Sequence

from harness.cell.cell import Cell
from harness.cost.model import decode_seconds, precision_of
from harness.cost.work import Unforeseeable, decode_work
from harness.machine.cards import DeviceCard, card_here, card_named
from harness.subject.prepare import prepare


def card_for(cell: Cell) -> DeviceCard | None:
    """The card of the device that ``cell`` runs on here; None where it was never calibrated."""
    return card_here(cell.device, cell.threads)


def predicted_hours(cells: Sequence[Cell], card_name: str | None) -> str:
    """One line: hours to decode the images of all cells once, without quality, start-up and repeats."""
    named = None if card_name is None else card_named(card_name)
    seconds, unpredicted, used = 0.0, 0, set[str]()
    for cell in cells:
        if cell.is_anchor:
            continue
        card = named or card_for(cell)
        if card is None:
            return "predicted hours: this machine has no device card; run 'pardec calibrate' or name a card"
        prepared = prepare(cell)
        try:
            batch_s = decode_seconds(
                decode_work(prepared, on_cpu=not card.asynchronous), card, precision_of(prepared, card)
            ).total
        except Unforeseeable:
            unpredicted += 1
            continue
        seconds += batch_s * math.ceil(cell.images / cell.batch)
        used.add(card.name)
    if not used:
        why = (
            f"none of the {unpredicted} cells can be predicted" if unpredicted else "no cell decodes anything"
        )
        return f"predicted hours: none, {why}"
    ending = f"; {unpredicted} cells can't be predicted" if unpredicted else ""
    return (
        f"predicted hours: {seconds / 3600:.4g} to decode every image once on {', '.join(sorted(used))}, "
        f"without start-up, repeats, detokenizing and quality{ending}"
    )
