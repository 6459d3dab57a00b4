"""Generation orders: which raster position (row * width + column) is generated at each place.

A rule is a function of the grid, any rectangle; random orders come from ``Streams.permutations``.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

from strategies.decoding.locality import LocalityDraws, locality_orders
from strategies.decoding.streams import Streams

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
    first fall into them (arXiv 2503.17076). Base 2 drives rows and base 3 columns, in whole numbers; points
    follow until every cell has one.
    """
    height, width = grid
    places, points = len(raster(grid)), 0
    first = np.zeros(0, dtype=np.int64)
    while len(first) < places:
        points = 2 * points or 4 * places
        point = np.arange(1, points + 1, dtype=np.int64)
        cells = _cell(point, 2, height) * width + _cell(point, 3, width)
        _, first = np.unique(cells, return_index=True)
    return cells[np.sort(first)]


def _cell(points: np.ndarray, base: int, cells: int) -> np.ndarray:
    """floor(cells * radical inverse in ``base``) of points [P]."""
    reversed_digits, power = np.zeros_like(points), 1
    while points.any():
        points, digits = np.divmod(points, base)
        reversed_digits, power = reversed_digits * base + digits, power * base
    return cells * reversed_digits // power


def s_curve(grid: tuple[int, int]) -> np.ndarray:
    """Rows in turn from left and from right, int64 [N]: every step goes to a neighbour (arXiv 2006.12486)."""
    rows = raster(grid).reshape(grid)
    rows[1::2] = rows[1::2, ::-1]
    return rows.reshape(-1)


def spiral(grid: tuple[int, int]) -> np.ndarray:
    """From the centre outwards, int64 [N]: every step goes to a neighbour; the upper left corner is last."""
    left, inwards = raster(grid).reshape(grid), []
    while left.size:
        inwards.append(left[0])
        left = np.rot90(left[1:])
    return np.concatenate(inwards)[::-1].copy()


def subsample(grid: tuple[int, int], stride: int = 4) -> np.ndarray:
    """Coarse to fine, int64 [N]: every ``stride``-th position of both axes row by row, then those at each
    offset between.

    First offsets that finish the grid of half the stride, its middles before its edges, and so on.
    """
    row, column = np.divmod(raster(grid), grid[1])
    down, right = row % stride, column % stride
    halving = np.array([stride, *(offset & -offset for offset in range(1, stride))])  # largest power of two
    step = np.minimum(halving[down], halving[right])
    on_edge = halving[down] != halving[right]
    return np.lexsort((column, row, right, down, on_edge, -step))


def hilbert(grid: tuple[int, int]) -> np.ndarray:
    """Hilbert's curve on any rectangle, int64 [N]: every step goes to a neighbour (arXiv 2006.12486).

    From the upper left corner along the longer side where a path can end in that side's other corner, else
    along the other.
    """
    height, width = grid
    raster(grid)  # a grid has positions
    if _can_cross(width, height) and (width >= height or not _can_cross(height, width)):
        column, row = _hilbert_path(width, height)
    else:
        row, column = _hilbert_path(height, width)
    return row * width + column


def _can_cross(length: int, depth: int) -> bool:
    """Whether a path of neighbours through all cells joins the two corners of the first side.

    On a chess board its ends would otherwise have colours that don't fit the number of cells.
    """
    return depth == 1 or (length > 1 and (length % 2 == 0 or depth % 2 == 1))


def _hilbert_path(length: int, depth: int) -> np.ndarray:
    """[2, length * depth], along and across: from (0, 0) to (length - 1, 0); both ``_can_cross``, and so do
    the parts, whose sides are cut at even numbers where it matters."""
    if depth == 1:
        return np.stack([np.arange(length), np.zeros(length, dtype=np.int64)])
    if 2 * length > 3 * depth:
        half = length // 2
        half += half % 2 if depth % 2 == 0 else 0
        ahead = np.array([[half], [0]])
        return np.concatenate([_hilbert_path(half, depth), ahead + _hilbert_path(length - half, depth)], 1)
    half, up = length // 2, (depth + 2) // 4 * 2 if depth > 2 else 1
    there = _hilbert_path(up, half)[::-1]
    over = np.array([[0], [up]]) + _hilbert_path(length, depth - up)
    back = np.array([[length - 1], [up - 1]]) - _hilbert_path(up, length - half)[::-1]
    return np.concatenate([there, over, back], axis=1)


RULES: Mapping[str, Callable[[tuple[int, int]], np.ndarray]] = {
    "raster": raster,
    "halton": halton,
    "s-curve": s_curve,
    "hilbert": hilbert,
    "spiral": spiral,
    "subsample": subsample,
}
"""Orders that the grid alone decides."""
OrderRule = Literal["random", "raster", "halton", "s-curve", "hilbert", "spiral", "subsample"]
"""What networks that decode any order can be asked for."""


def ruled_orders(rule: OrderRule, grid: tuple[int, int], streams: Streams) -> np.ndarray:
    """A uniform permutation per image, int64 [B, N], or the rule's order, [1, N]."""
    if rule == "random":
        return streams.permutations(grid[0] * grid[1])
    return np.array([_of_grid(rule, grid)], dtype=np.int64)


@lru_cache(maxsize=64)
def _of_grid(rule: str, grid: tuple[int, int]) -> tuple[int, ...]:
    return tuple(RULES[rule](grid).tolist())
