"""What is stored beside the rows: pictures, bits lost and predicted cost of a cell, and edited images."""

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pardec.errors import UserError
from results.annotations import fault
from results.arrays import ArraysError, read_arrays
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
    drafts_tested: np.ndarray | None = None
    """[h, w]: tests of drafts of each position, over all images."""
    drafts_accepted: np.ndarray | None = None
    """[h, w]: those passed."""
    lossiness_bits: np.ndarray | None = None
    """[n, K] float32: bits that each image loses at each step."""
    steps_of_images: np.ndarray | None = None
    """[n, h, w]: step that writes each position of the first images, from 0."""
    lost_draws: np.ndarray | None = None
    """[m, 3]: (image, step, position) of draws that their step did not keep, e.g. rejected drafts."""
    problems: tuple[str, ...] = ()


_MOST_SIDE = 4096
"""Pixels, or positions, along a side of what pictures show."""
_MOST_NUMBER = 1e9
_RANKS = {
    "step_of_position": 2,
    "film": 4,
    "samples": 4,
    "classes": 1,
    "lossiness_bits": 2,
    "steps_of_images": 3,
    "lost_draws": 2,
    "drafts_tested": 2,
    "drafts_accepted": 2,
}
_NO_PICTURES = ("cost", "method")
"""Artifacts that are no arrays."""


def load_artifacts(row: Row, folder: Path) -> Artifacts:
    """The artifacts of ``row``, relative to ``folder``; what can't be read is a problem, not an error."""
    arrays: dict[str, np.ndarray] = {}
    problems = [] if row.artifacts else ["no artifacts recorded"]
    pictures = [relative for kind, relative in row.artifacts.items() if kind not in _NO_PICTURES]
    for relative in dict.fromkeys(pictures):
        try:
            path = _inside(folder, relative)
            arrays |= read_arrays(path, _RANKS)
        except FileNotFoundError:
            problems.append(f"{relative} is missing")
        except (OSError, ArraysError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.reason
            problems.append(f"{relative:.200} can't be read ({reason})")
    for name, rank in _RANKS.items():
        if name in arrays and not _drawable(name, arrays[name], rank):
            array = arrays.pop(name)
            problems.append(f"{name} has shape {list(array.shape)} of {array.dtype}")
    if "samples" in arrays and len(arrays.get("classes", ())) > len(arrays["samples"]):
        problems.append(f"{len(arrays.pop('classes'))} classes of {len(arrays['samples'])} samples")
    return Artifacts(**arrays, problems=tuple(problems))


def _inside(folder: Path, relative: str) -> Path:
    """The file that a row names. OSError where it is none, or outside ``folder``: rows come from anywhere."""
    try:
        path = (folder / relative).resolve(strict=True)
    except (ValueError, RuntimeError) as error:  # a null byte; links in a circle
        raise OSError(errno.EINVAL, str(error)) from None
    if not path.is_relative_to(folder.resolve()):
        raise OSError(errno.EPERM, "it lies outside the results")
    return path


def _drawable(name: str, array: np.ndarray, rank: int) -> bool:
    """Whether an array has the type and shape that pictures are made of."""
    if array.ndim != rank or (array.size == 0 and name != "lost_draws"):
        return False
    if name == "lost_draws" and array.shape[1] != 3:
        return False
    if name in ("film", "samples"):
        return array.dtype == np.uint8 and array.shape[-1] == 3 and max(array.shape[-3:-1]) <= _MOST_SIDE
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return False
    if np.abs(array).max(initial=0) > _MOST_NUMBER:
        return False
    return name not in ("step_of_position", "steps_of_images") or max(array.shape) <= _MOST_SIDE


_MOST_EDITS, _MOST_CHARACTERS = 60, 300


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
        texts = [*labels, *heads, str(stored["caption"]), str(stored["strategy"])]
        if max(len(labels), len(heads)) > _MOST_EDITS or max(map(len, texts)) > _MOST_CHARACTERS:
            raise UserError(f"'{path}' holds too much for a picture; make it anew")
        if images.shape[:2] != (len(labels), len(heads)) or not _drawable("film", images, 5):
            raise UserError(f"'{path}' holds images {images.dtype} {list(images.shape)}; make it anew")
        found.append(edits)
    return found


COST_SECONDS = ("tokens_s", "guidance_s", "cache_s", "attention_s", "launch_s", "total_s", "latency_s")
"""What every stored prediction holds, in seconds of one batch (``latency_s``: of one image)."""
_COST_NUMBERS = (*COST_SECONDS, "throughput_images_per_s", "peak_bytes")
_COST_DIVISORS = ("tokens_s", "total_s", "latency_s", "throughput_images_per_s", "peak_bytes")
"""Those of which ratios are taken."""


def load_cost(row: Row, folder: Path) -> dict[str, Any] | None:
    """What the cost model predicted for ``row``; None where nothing readable was stored."""
    values = _json(row, "cost", folder)
    if values is None or not isinstance(values.get("card"), str):
        return None
    numbers: list[Any] = [values.get(name) for name in _COST_NUMBERS]
    whole = all(fault(number, float) is None and number >= 0 for number in numbers)
    return values if whole and all(values[name] > 0 for name in _COST_DIVISORS) else None


def load_method(row: Row, folder: Path) -> dict[str, Any] | None:
    """The card of the row's method, as the worker stored it; None where nothing readable was stored."""
    return _json(row, "method", folder)


def _json(row: Row, kind: str, folder: Path) -> dict[str, Any] | None:
    """The object that an artifact holds."""
    if kind not in row.artifacts:
        return None
    try:
        values = json.loads(_inside(folder, row.artifacts[kind]).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
