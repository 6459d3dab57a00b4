"""A cell as a sweep runs it: checked whole, every file behind its numbers pinned by hash."""

import dataclasses
import hashlib
import sys
from pathlib import Path

from harness.cell.cell import ANCHORS, RANDOM, SCORING, Cell
from harness.quality.assess.adm import with_scoring
from harness.subject.prepare import check_device, load_plugins, prepare
from harness.weights import zoo
from pardec.errors import UserError
from pardec.hashing import file_sha256


def finished(cell: Cell) -> Cell:
    """The cell as a sweep runs it: checked, its steps and label filled in, its files pinned by hash."""
    if cell.memory_limit_gb is not None and sys.platform != "linux":
        raise UserError("memory_limit_gb needs Linux, whose kernel enforces it; leave it out")
    if cell.is_anchor:
        load_plugins(cell.plugin)
        check_device(cell.device, cell.dtype)
        cell = dataclasses.replace(cell, label=cell.label or ANCHORS[cell.strategy])
    else:
        cell = prepare(cell).cell
        if any(getattr(cell, name) is not None for name in SCORING):
            cell = with_scoring(cell)
    return dataclasses.replace(cell, pins=pins(cell))


def pins(cell: Cell) -> dict[str, str]:
    """Hashes of all files behind a cell's numbers."""
    found: dict[str, str] = {}
    if not cell.is_published:
        found = {role: file_sha256(zoo.shared_file(role, cell.zoo)) for role in zoo.SHARED}
    if cell.is_published and cell.checkpoint not in (None, RANDOM):
        found["network"] = file_sha256(Path(str(cell.checkpoint)))
    elif not cell.is_anchor and not cell.is_published:
        card = zoo.read_card(cell.network, cell.zoo)
        found["card" if cell.checkpoint == RANDOM else "network"] = file_sha256(
            card.weights.with_suffix(".json") if cell.checkpoint == RANDOM else card.weights
        )
    if cell.tokenizer_checkpoint not in (None, RANDOM):
        found["tokenizer"] = file_sha256(Path(str(cell.tokenizer_checkpoint)))
    for role in SCORING:
        file = getattr(cell, role)
        if file is not None:
            found[role] = folder_hash(Path(file)) if Path(file).is_dir() else file_sha256(Path(file))
    kind, _, path = cell.data.partition(":")
    if kind == "imagefolder":
        found["data"] = folder_hash(Path(path.partition("?")[0]))
    for plugin in cell.plugin:
        found[f"plugin {Path(plugin).stem}"] = file_sha256(Path(plugin))
    return found


def folder_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the files of a folder."""
    if not folder.is_dir():
        raise UserError(f"data: no image folder '{folder}'")
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
