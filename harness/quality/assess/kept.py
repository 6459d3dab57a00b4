"""What takes long of a reference, read once per result folder."""

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.images.arrays import write_npz
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
