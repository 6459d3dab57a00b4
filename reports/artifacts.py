"""What is stored beside the rows: pictures, bits lost and predicted cost of a cell, and edited images."""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
        try:
            with np.load(folder / relative, allow_pickle=False) as stored:
                arrays |= {name: stored[name] for name in _RANKS if name in stored.files}
        except FileNotFoundError:
            problems.append(f"{relative} is missing")
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            problems.append(f"{relative} can't be read ({error})")
    for name, rank in _RANKS.items():
        if name in arrays and (arrays[name].ndim != rank or arrays[name].size == 0):
            problems.append(f"{name} has shape {list(arrays.pop(name).shape)}")
    return Artifacts(**arrays, problems=tuple(problems))


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
        try:
            with np.load(path, allow_pickle=False) as stored:
                labels, heads = (tuple(stored[name].tolist()) for name in ("labels", "heads"))
                edits = Edits(
                    str(stored["strategy"]), str(stored["caption"]), labels, heads, stored["images"]
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"'{path}' can't be read: {' '.join(str(error).split())}") from None
        if edits.images.ndim != 5 or edits.images.shape[:2] != (len(labels), len(heads)):
            raise UserError(f"'{path}' holds images of shape {list(edits.images.shape)}; make it anew")
        found.append(edits)
    return found


COST_SECONDS = ("tokens_s", "guidance_s", "cache_s", "attention_s", "launch_s", "total_s", "latency_s")
"""What every stored prediction holds, in seconds of one batch (``latency_s``: of one image)."""
_COST_NUMBERS = (*COST_SECONDS, "throughput_images_per_s", "peak_bytes")


def load_cost(row: Row, folder: Path) -> dict[str, Any] | None:
    """What the cost model predicted for ``row``; None where nothing readable was stored."""
    if "cost" not in row.artifacts:
        return None
    try:
        values = json.loads((folder / row.artifacts["cost"]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("card"), str):
        return None
    numbers = [values.get(name) for name in _COST_NUMBERS]
    whole = all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)
    return values if whole and values["throughput_images_per_s"] > 0 else None
