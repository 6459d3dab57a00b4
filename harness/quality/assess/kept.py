"""What takes long of a reference, read once per result folder."""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.images.arrays import write_npz
from harness.quality import ReferenceStats, kernel, neighbours
from results.arrays import ArraysError, read_arrays


def kept(
    path: Path, names: Collection[str], make: Callable[[], dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """The arrays ``names`` of an npz that ``make`` gave once; made again where the file isn't whole."""
    if path.is_file():
        with suppress(ArraysError):
            found = read_arrays(path, names)
            if len(found) == len(names):
                return found
    made = make()
    write_npz(path, **{name: np.asarray(made[name]) for name in names})
    return made


def slow_parts(points: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """What takes longest of a reference whose features are ``points`` [n, D]."""
    return {
        "kernel_mean": np.array(kernel.mean_of_pairs(points)),
        "radii": neighbours.radii(points),
    }


def with_slow_parts(stats: ReferenceStats, stored: Mapping[str, NDArray[Any]]) -> ReferenceStats:
    """``stats`` that will not compute them again; their names are those of its cached properties."""
    stats.__dict__.update(kernel_mean=float(stored["kernel_mean"]), radii=stored["radii"])
    return stats
