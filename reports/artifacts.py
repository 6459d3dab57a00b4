"""What is stored beside the rows: pictures, bits lost and predicted cost of a cell, and edited images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from results.annotations import fault
from results.arrays import read_arrays
from results.errors import UserError
from results.schema import Row


@dataclass(frozen=True)
class Artifacts:
    """A cell's arrays; None where they are missing, and ``problems`` says why."""

    step_of_position: np.ndarray | None = None
    """[h, w]: step that writes each position, from 0; the mean where every image has its own order."""
    film: np.ndarray | None = None
    """[frames, H, W, 3] uint8: one image appearing."""
    samples: np.ndarray | None = None
    """[n, H, W, 3] uint8."""
    classes: np.ndarray | None = None
    """[n]: class of each sample."""
    lossiness_bits: np.ndarray | None = None
    """[n, K] float32: bits that each image loses at each step."""
    problems: tuple[str, ...] = ()


_RANKS = {
    "step_of_position": 2,
    "film": 4,
    "samples": 4,
    "classes": 1,
    "lossiness_bits": 2,
}


def load_artifacts(row: Row, folder: Path) -> Artifacts:
    """The artifacts of ``row``, relative to ``folder``; what can't be read is a problem, not an error."""
    arrays: dict[str, np.ndarray] = {}
    problems = [] if row.artifacts else ["no artifacts recorded"]
    pictures = [relative for kind, relative in row.artifacts.items() if kind != "cost"]
    for relative in dict.fromkeys(pictures):
        path = _inside(folder, relative)
        if path is None:
            problems.append(f"{relative} lies outside the results")
        elif not path.is_file():
            problems.append(f"{relative} is missing")
        else:
            try:
                arrays |= read_arrays(path, _RANKS)
            except UserError as error:
                problems.append(str(error))
    for name, rank in _RANKS.items():
        if name in arrays and not _drawable(name, arrays[name], rank):
            array = arrays.pop(name)
            problems.append(f"{name} is {array.dtype} {list(array.shape)}")
    return Artifacts(**arrays, problems=tuple(problems))


def _inside(folder: Path, relative: str) -> Path | None:
    """The file that a row names, None where it is outside ``folder``: rows come from anywhere."""
    try:
        path = (folder / relative).resolve()
        return path if path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):
        return None


def _drawable(name: str, array: np.ndarray, rank: int) -> bool:
    """Whether an array has the type and shape that pictures are made of."""
    if array.ndim != rank or array.size == 0:
        return False
    if name in ("film", "samples"):
        return array.dtype == np.uint8 and array.shape[-1] == 3
    return array.dtype.kind in "fiu" and bool(np.isfinite(array).all())


@dataclass(frozen=True)
class Edits:
    """Real images of which a strategy was given a part, as ``pardec sample --inpaint-demo`` stores them.

    images: uint8 [n, m, H, W, 3], the image, its given part and completions; labels [n]; heads [m].
    """

    strategy: str
    caption: str
    labels: tuple[str, ...]
    heads: tuple[str, ...]
    images: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``load_edits`` reads, as arrays for an npz."""
        texts = {name: np.array(getattr(self, name)) for name in ("strategy", "caption", "labels", "heads")}
        return {"images": self.images, **texts}


def edits_path(folder: Path, strategy: str) -> Path:
    """Where the edited images of a strategy stand in a folder of results."""
    return folder / "artifacts" / f"editing-{strategy}.npz"


def load_edits(folder: Path) -> list[Edits]:
    """All edited images of a folder of results; a file that can't be read raises a one-line ``UserError``."""
    found = []
    for path in sorted((folder / "artifacts").glob("editing-*.npz")):
        stored = read_arrays(path)
        if not {"strategy", "caption", "labels", "heads", "images"} <= stored.keys():
            raise UserError(f"'{path}' holds no edited images; make it anew")
        images = stored["images"]
        labels, heads = (tuple(map(str, stored[name].ravel().tolist())) for name in ("labels", "heads"))
        edits = Edits(str(stored["strategy"]), str(stored["caption"]), labels, heads, images)
        if images.shape[:2] != (len(labels), len(heads)) or not _drawable("film", images, 5):
            raise UserError(f"'{path}' holds images {images.dtype} {list(images.shape)}; make it anew")
        found.append(edits)
    return found


COST_SECONDS = ("tokens_s", "guidance_s", "cache_s", "attention_s", "launch_s", "total_s", "latency_s")
"""What every stored prediction holds, in seconds of one batch (``latency_s``: of one image)."""
_COST_NUMBERS = (*COST_SECONDS, "throughput_images_per_s", "weight_bytes", "cache_bytes", "activation_bytes")


def load_cost(row: Row, folder: Path) -> dict[str, Any] | None:
    """What the cost model predicted for ``row``; None where nothing readable was stored."""
    if "cost" not in row.artifacts:
        return None
    path = _inside(folder, row.artifacts["cost"])
    try:
        values = None if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("card"), str):
        return None
    numbers = [values.get(name) for name in _COST_NUMBERS]
    whole = all(fault(number, float) is None for number in numbers)
    return values if whole and values["throughput_images_per_s"] > 0 else None
