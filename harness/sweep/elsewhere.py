"""Cells of devices that this machine doesn't have: what of them can be checked, planned and finished here."""

import dataclasses
import re

import torch

from harness.cell.cell import Cell
from harness.subject.pins import finished
from harness.subject.prepare import on_device


def is_elsewhere(cell: Cell) -> bool:
    """Whether the cell runs on a CUDA device that this machine doesn't have."""
    match = re.fullmatch(r"cuda(?::(\d+))?", cell.device)
    return match is not None and int(match[1] or 0) >= torch.cuda.device_count()


def preparable(cell: Cell) -> Cell:
    """The cell, or what takes the same plan and as many bytes on this machine's CPU."""
    return _on_cpu(cell) if is_elsewhere(cell) else cell


def foreseen(cell: Cell) -> Cell:
    """The cell finished as where its device is: this machine may be another. UserError for settings that no
    such device can have.

    ``attention = "auto"`` is a mask, as on a device without a card: no card of that device is known here.
    """
    if not is_elsewhere(cell):
        return finished(cell)
    on_device(dataclasses.replace(cell, attention="mask" if cell.attention == "auto" else cell.attention))
    kept = {name: getattr(cell, name) for name in ("device", "dtype", "cuda_graphs", "one_graph")}
    return dataclasses.replace(finished(_on_cpu(cell)), **kept)


def _on_cpu(cell: Cell) -> Cell:
    """A CUDA cell on the CPU, with what CUDA makes of settings that are left open."""
    return dataclasses.replace(
        cell,
        device="cpu",
        dtype="bfloat16" if cell.dtype == "float16" else cell.dtype,  # as wide, and a CPU's
        products="plain" if cell.products == "auto" else cell.products,
        attention="mask" if cell.attention == "auto" else cell.attention,
        cuda_graphs=False,
        one_graph=False,
    )
