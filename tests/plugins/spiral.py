"""Spiral: ARPG's network decodes from the centre outwards, ring by ring (an example, no paper)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from strategies.arpg import ARPG
from strategies.decoding.streams import Streams


@dataclass(frozen=True)
class Spiral(ARPG):
    name: ClassVar[str] = "spiral"
    title: ClassVar[str] = "Spiral"
    paper: ClassVar[str] = "none"
    base: ClassVar[str | None] = "arpg"
    any_order: ClassVar[bool] = True

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
        y, x = rows - (grid[0] - 1) / 2, columns - (grid[1] - 1) / 2
        ring = np.maximum(abs(y), abs(x))
        by_ring = np.lexsort((np.arctan2(y, x), ring))  # ring first, then the angle within it
        return np.concatenate([known, by_ring[~np.isin(by_ring, known)]])
