"""Arrays beside the rows: written whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pardec.files import write_whole


def write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays as a compressed npz, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
