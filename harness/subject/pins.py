"""A cell as a sweep runs it: checked whole, every file behind its numbers pinned by hash."""

import dataclasses
import sys
from pathlib import Path

from harness.cell.cell import ANCHORS, RANDOM, SCORING, Cell, network_pin
from harness.images.data import files_of
from harness.images.folders import clean_files, content_hash
from harness.images.names import refuse_replaced
from harness.quality.assess.adm import with_scoring
from harness.subject.prepare import check_counts, check_device, load_plugins, prepare
from harness.subject.tokenizers import zoo_tokenizer
from harness.weights import zoo
from harness.weights.finite import check_zoo_file
from pardec.errors import UserError
from pardec.hashing import file_sha256


def finished(cell: Cell) -> Cell:
    """The cell as a sweep runs it: checked, its steps and label filled in, its files pinned by hash."""
    if cell.memory_limit_gb is not None and sys.platform != "linux":
        raise UserError("memory_limit_gb needs Linux, whose kernel enforces it; leave it out")
    if cell.is_anchor:
        refuse_replaced(cell.data)
        load_plugins(cell.plugin)
        check_device(cell.device, cell.dtype)
        cell = dataclasses.replace(cell, label=cell.label or ANCHORS[cell.strategy])
    else:
        prepared = prepare(cell)
        check_counts(prepared)
        cell = prepared.cell
        if any(getattr(cell, name) is not None for name in SCORING):
            cell = with_scoring(cell)
    zoo_tokenizer(cell)  # refuses a decoder of other codes
    if not cell.is_published:
        for path in _shared_files(cell).values():
            check_zoo_file(path, file_sha256(path))
    return dataclasses.replace(cell, pins=pins(cell))


def _shared_files(cell: Cell) -> dict[str, Path]:
    """The zoo's files that a cell uses, by role; its tokenizer is its strategy's."""
    own = zoo_tokenizer(cell)
    return {role: zoo.shared_file(own if role == "tokenizer" else role, cell.zoo) for role in zoo.SHARED}


def pins(cell: Cell) -> dict[str, str]:
    """Hashes of all files behind a cell's numbers."""
    found: dict[str, str] = {}
    if not cell.is_published:
        found = {role: file_sha256(path) for role, path in _shared_files(cell).items()}
    if cell.roles:
        found |= {network_pin(role): _weights_hash(cell, name) for role, name in cell.roles.items()}
    elif cell.is_published and cell.checkpoint not in (None, RANDOM):
        found["network"] = file_sha256(Path(str(cell.checkpoint)))
    elif not cell.is_anchor and not cell.is_published:
        found["card" if cell.checkpoint == RANDOM else "network"] = _weights_hash(cell, cell.network)
    if cell.tokenizer_checkpoint not in (None, RANDOM):
        found["tokenizer"] = file_sha256(Path(str(cell.tokenizer_checkpoint)))
    for role in SCORING:
        file = getattr(cell, role)
        if file is not None:
            path = Path(file)
            # Only clean_reference may be a folder.
            found[role] = content_hash(path, clean_files(path)) if path.is_dir() else file_sha256(path)
    data = files_of(cell.data)
    if data is not None:
        found["data"] = content_hash(*data)
    for plugin in cell.plugin:
        found[f"plugin {Path(plugin).stem}"] = file_sha256(Path(plugin))
    return found


def _weights_hash(cell: Cell, name: str) -> str:
    """Of a published file, of the zoo's weights, or of their card alone where they are left at random."""
    if cell.is_published:
        return file_sha256(Path(name))
    weights = zoo.read_card(name, cell.zoo).weights
    return file_sha256(weights.with_suffix(".json") if cell.checkpoint == RANDOM else weights)
