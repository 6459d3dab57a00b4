"""The orders of a naive LPD (Zhang et al., arXiv 2507.01957) from the specification alone, cell by cell."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from tests.naive.parts import recording
from tests.replays.common import Golden


def score(cell: int, chosen: set[int], side: int) -> float:
    """Chosen edge neighbours, and diagonal ones at 1 / sqrt(2) each."""
    row, column = divmod(cell, side)
    edges = diagonals = 0
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            inside = 0 <= row + down < side and 0 <= column + right < side
            if inside and (row + down) * side + column + right in chosen:
                edges += abs(down) + abs(right) == 1
                diagonals += abs(down) + abs(right) == 2
    return edges + diagonals / math.sqrt(2)


def rows_and_columns_between(one: int, other: int, side: int) -> tuple[int, int]:
    return abs(one // side - other // side), abs(one % side - other % side)


def farthest(pool: Sequence[int], group: Sequence[int], side: int) -> int:
    """The cell of the pool whose nearest member of the group is farthest away; the first of equals."""
    nearest = []
    for cell in pool:
        between = [rows_and_columns_between(cell, member, side) for member in group]
        nearest.append(min(rows**2 + columns**2 for rows, columns in between))
    return pool[nearest.index(max(nearest))]


def next_group(
    chosen: set[int],
    size: int,
    side: int,
    thresholds: tuple[float, float],
    tie_rank: Sequence[int],
    drawn: Callable[[Sequence[int]], int],
) -> list[int]:
    """The cells that follow those chosen; drawn: what a group without members takes from its pool."""
    proximity, repulsion = thresholds
    scores = {cell: score(cell, chosen, side) for cell in range(side**2) if cell not in chosen}
    by_score = sorted(scores, key=lambda cell: (-scores[cell], tie_rank[cell]))
    near = [cell for cell in by_score if scores[cell] >= proximity]
    far = [cell for cell in by_score if scores[cell] < proximity]
    group, rejected = list[int](), list[int]()
    while near and len(group) < size:
        cell = near.pop(0)
        between = [max(rows_and_columns_between(cell, member, side)) for member in group]
        if all(cells > repulsion for cells in between):
            group.append(cell)
        else:
            rejected.append(cell)
    pool = far + rejected
    if len(pool) <= size - len(group):
        return group + pool
    while len(group) < size:
        added = farthest(pool, group, side) if group else drawn(pool)
        pool.remove(added)
        group.append(added)
    return group


def ordered(
    name: str,
    side: int,
    sizes: Sequence[int],
    proximity: float = 1.0,
    repulsion: float = 1.0,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    """Three orders and what they drew, -1 where nothing was."""
    random, rows, places = np.random.default_rng(0), 3, side**2
    first = random.integers(places, size=rows)
    tie_rank, fill_first = np.full((rows, len(sizes), places), -1), np.full((rows, len(sizes)), -1)
    order = [[cell] for cell in first.tolist()]
    for row in range(rows):
        for step in range(1, len(sizes)):
            free = np.setdiff1d(np.arange(places), order[row])
            tie_rank[row, step, free] = random.permutation(len(free))

            def drawn(pool: Sequence[int], at: tuple[int, int] = (row, step)) -> int:
                fill_first[at] = random.choice(pool)
                return int(fill_first[at])

            ranks, thresholds = tie_rank[row, step].tolist(), (proximity, repulsion)
            order[row] += next_group(set(order[row]), sizes[step], side, thresholds, ranks, drawn)
    config = {"grid_size": side, "proximity_threshold": proximity, "repulsion_threshold": repulsion}
    io = {"first": first, "tie_rank": tie_rank, "fps_first": fill_first, "order": order, "group_sizes": sizes}
    tensors = {key: torch.as_tensor(value) for key, value in io.items()}
    return recording("lpd", "order", name, tensors, config, unsaid=unsaid)


MAKERS: dict[str, Callable[[str], Golden]] = {
    "order-of-one-cell": partial(ordered, side=1, sizes=[1]),
    "order-group-takes-its-pool": partial(ordered, side=3, sizes=[1, 8], repulsion=2.0),
    "order-all-near": partial(ordered, side=5, sizes=[1, 3, 6, 15], proximity=0.0),
    "order-none-near": partial(ordered, side=5, sizes=[1, 2, 1, 9, 4, 8], proximity=7.0),
    "order-score-at-the-threshold": partial(
        ordered, side=6, sizes=[1, 2, 9, 3, 5, 4, 12], proximity=1 + 1 / math.sqrt(2)
    ),
    "order-fractional-repulsion": partial(ordered, side=7, sizes=[1, 3, 5, 7, 9, 11, 13], repulsion=1.5),
    "order-repulsion-across-the-grid": partial(ordered, side=5, sizes=[1, 2, 3, 4, 15], repulsion=10.0),
    "order-defaults-unsaid": partial(
        ordered,
        side=4,
        sizes=[1, 1, 2, 4, 8],
        unsaid=("grid_size", "proximity_threshold", "repulsion_threshold"),
    ),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
