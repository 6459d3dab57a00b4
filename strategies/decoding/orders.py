"""Generation orders: which raster position (row * width + column) is generated at each place.

Random orders come from ``Streams.permutations``.
"""

import math

import numpy as np

from strategies.decoding.locality import LocalityDraws, locality_orders

__all__ = ["LocalityDraws", "halton", "locality_orders", "raster", "region_order"]


def raster(grid: tuple[int, int]) -> np.ndarray:
    """Row by row, int64 [N] for a grid of (height, width)."""
    height, width = grid
    if height < 1 or width < 1:
        raise ValueError(f"a grid of {height} x {width} has no positions")
    return np.arange(height * width, dtype=np.int64)


def diagonal(grid: tuple[int, int]) -> np.ndarray:
    """NAR's order (arXiv 2503.10696), int64 [N]: anti-diagonals, each from top right to bottom left."""
    row, column = np.divmod(raster(grid), grid[1])
    return np.lexsort((row, row + column))


def diagonal_sizes(grid: tuple[int, int]) -> tuple[int, ...]:
    """Tokens of each anti-diagonal."""
    row, column = np.divmod(raster(grid), grid[1])
    return tuple(np.bincount(row + column).tolist())


def window_order(grid: tuple[int, int], side: int) -> np.ndarray:
    """Windows of ``side`` x ``side`` row by row, each row by row inside, int64 [N]; side must divide both."""
    cells = raster(grid).reshape(grid[0] // side, side, grid[1] // side, side)
    return cells.transpose(0, 2, 1, 3).reshape(-1)


def region_order(grid: tuple[int, int], regions: int) -> np.ndarray:
    """PAR's order (arXiv 2412.15119), int64 [N]: the first token of every region, then the second, ...

    The grid (height, width) is cut into ``regions`` = s x s equal regions. Local places go row by row inside
    a region; at each local place the regions follow one another row by row. Raises ``ValueError`` unless
    ``regions`` is a perfect square of at least 4 whose root divides both sides.
    """
    height, width = grid
    side = math.isqrt(max(regions, 0))
    if regions < 4 or side * side != regions:
        raise ValueError(f"{regions} regions: a perfect square of at least 4 is needed")
    if height < 1 or width < 1 or height % side or width % side:
        raise ValueError(f"a grid of {height} x {width} doesn't divide into {side} x {side} equal regions")
    positions = raster(grid).reshape(side, height // side, side, width // side)  # [a, i, b, j]
    return positions.transpose(1, 3, 0, 2).reshape(-1)  # [i, j, a, b] -> [N]


def halton(grid: tuple[int, int]) -> np.ndarray:
    """Spread out evenly, int64 [N]: the cells of a grid (height, width) in the order in which Halton points
    first fall into them (arXiv 2503.17076). Base 2 drives rows and base 3 columns, in whole numbers.
    """
    height, width = grid
    left = set(raster(grid).tolist())
    order: list[int] = []
    point = 0
    while left:
        point += 1
        position = _cell(point, 2, height) * width + _cell(point, 3, width)
        if position in left:
            left.remove(position)
            order.append(position)
    return np.array(order, dtype=np.int64)


def _cell(point: int, base: int, cells: int) -> int:
    """floor(cells * radical inverse of ``point`` in ``base``)."""
    reversed_digits, power = 0, 1
    while point:
        point, digit = divmod(point, base)
        reversed_digits, power = reversed_digits * base + digit, power * base
    return cells * reversed_digits // power
