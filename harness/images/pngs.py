"""The images of one run as a folder of PNGs, each of which says whose it is."""

import json
from pathlib import Path

from PIL import Image, PngImagePlugin

from harness.cell.cell import Cell
from harness.images.shards import Shards, identity
from pardec.errors import UserError
from pardec.hashing import text_key
from results.arrays import UNREADABLE

_RUN = "pardec run"
"""Key of the text in every PNG that names its run."""


def export_png(shards: Shards, folder: Path, cell: Cell) -> None:
    """Write one PNG per image, named by its index, so that sorted names are the order of generation.

    UserError for a folder that ``check_png`` refuses.
    """
    check_png(folder, cell)
    folder.mkdir(parents=True, exist_ok=True)
    text = PngImagePlugin.PngInfo()
    text.add_text(_RUN, _run_of(cell))
    index = 0
    for part in shards.parts("images"):
        for pixels in part:
            Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / _name(index), pnginfo=text)
            index += 1


def check_png(folder: Path, cell: Cell) -> None:
    """UserError for a folder of anything else than images of the cell's own run, and no more of them."""
    try:
        held = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"--png '{folder}' can't be read: {error.strerror or error}") from None
    names = {_name(index) for index in range(len(held))}
    for path in held:
        if path.name not in names or _run_in(path) != _run_of(cell):
            raise UserError(
                f"--png '{folder}' holds '{path.name}', which is not of this run; expected an empty folder "
                "or one of this run's images"
            )
    if len(held) > cell.images:
        raise UserError(
            f"--png '{folder}' holds {len(held)} images of this run, more than the {cell.images} asked for"
        )


def _name(index: int) -> str:
    return f"{index:08d}.png"


def _run_of(cell: Cell) -> str:
    return text_key(json.dumps(identity(cell), sort_keys=True))


def _run_in(path: Path) -> str | None:
    """Which run a PNG names, None for another file."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            found = getattr(image, "text", {}).get(_RUN)
    except UNREADABLE:
        return None
    return found if isinstance(found, str) else None
