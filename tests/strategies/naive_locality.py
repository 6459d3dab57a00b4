"""LPD's locality order written down as plain loops: the oracle of the fast one, and its named speed baseline.

One order at a time, every free position rescored against every written one, farthest points by full search.
``violations`` checks a finished order against the rule without knowing the draws behind it.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

TOLERANCE = 1e-9


def naive_locality_order(
    side: int,
    sizes: Sequence[int],
    proximity: float,
    repulsion: float,
    first: int,
    tie_rank: np.ndarray,
    fps_first: np.ndarray | None = None,
    known: Sequence[int] = (),
) -> list[int]:
    """One order from the draws of one image: ``tie_rank`` [K, N] and ``fps_first`` [K]."""
    order = list(known)
    for step, size in enumerate(sizes):
        if not order:
            order.append(first)
            continue
        free = [p for p in range(side * side) if p not in order]
        score = {p: support(p, order, side) for p in free}
        ranked = sorted(free, key=lambda p: (-score[p], tie_rank[step, p], p))
        near = [p for p in ranked if score[p] >= proximity - TOLERANCE]
        group, rejected = [], []
        for p in near:
            if len(group) == size:
                break
            clear = all(chebyshev(p, q, side) > repulsion for q in group)
            (group if clear else rejected).append(p)
        pool = [p for p in ranked if p not in near] + rejected
        if len(pool) <= size - len(group):
            group += pool
        if not group:
            group.append(
                min(pool, key=lambda p: (tie_rank[step, p], p)) if fps_first is None else fps_first[step]
            )
        while len(group) < size:
            rest = [p for p in pool if p not in group]
            group.append(max(rest, key=lambda p: min(squared_distance(p, q, side) for q in group)))
        order += group
    return order


def support(p: int, written: Sequence[int], side: int) -> float:
    edge = diagonal = 0
    for q in written:
        distance = squared_distance(p, q, side)
        edge += distance == 1
        diagonal += distance == 2
    return edge + diagonal * math.sqrt(0.5)


def chebyshev(p: int, q: int, side: int) -> int:
    return max(abs(p // side - q // side), abs(p % side - q % side))


def squared_distance(p: int, q: int, side: int) -> int:
    return (p // side - q // side) ** 2 + (p % side - q % side) ** 2


def violations(
    order: Sequence[int],
    side: int,
    sizes: Sequence[int],
    proximity: float,
    repulsion: float,
    known: Sequence[int] = (),
) -> Iterator[str]:
    """What the order breaks of the rule; nothing for a valid one."""
    order = [int(p) for p in order]
    if sorted(order) != list(range(side * side)):
        yield "not a permutation"
        return
    start = len(known)
    if set(order[:start]) != set(known):
        yield "the known positions don't come first"
    for step, size in enumerate(sizes):
        group = order[start : start + size]
        if start:
            for text in _group_violations(group, order[:start], side, proximity, repulsion):
                yield f"group {step}: {text}"
        elif size != 1:
            yield "the first group holds more than one"
        start += size


def _group_violations(
    group: list[int], written: list[int], side: int, proximity: float, repulsion: float
) -> Iterator[str]:
    free = set(range(side * side)) - set(written)
    score = {p: support(p, written, side) for p in free}
    near = {p for p in free if score[p] >= proximity - TOLERANCE}
    accepted = 0
    while accepted < len(group):
        clear = [p for p in near if all(chebyshev(p, q, side) > repulsion for q in group[:accepted])]
        if not clear:
            break
        member = group[accepted]
        if member not in clear:
            yield f"{member} is filled although a supported position is left"
            return
        if score[member] < max(score[p] for p in clear) - TOLERANCE:
            yield f"{member} isn't the best supported position left"
        accepted += 1
    if any(chebyshev(p, q, side) <= repulsion for p, q in combinations(group[:accepted], 2)):
        yield "accepted members are too close"
    takes_all = len(group) == len(free)
    for place in range(max(accepted, 1), 0 if takes_all else len(group)):
        before = group[:place]
        reach = {p: min(squared_distance(p, q, side) for q in before) for p in free - set(before)}
        if reach[group[place]] < max(reach.values()):
            yield f"{group[place]} isn't the farthest position left"
