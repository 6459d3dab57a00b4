"""LPD's locality-aware generation order (arXiv 2507.01957), exactly and for a whole batch of images at once.

Every group prefers positions close to what earlier groups wrote (proximity) and far from one another
(repulsion): it first accepts well-supported positions one by one, best first, striking out the
neighbourhood of each, and fills what is still missing by farthest-point selection. The support of a free
position is its number of written edge neighbours plus 1/sqrt(2) times its number of written diagonal
neighbours. Supports are kept as counts, so equal ones tie exactly and only the random draws decide between
them.

The loops below run over the members of a group; each turn handles one member of every order in the batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from strategies.decoding.streams import Streams

# A position's key ranks it by one comparison; its bits: pool 29, support level 24-28, tie 0-23.
_TIE_BITS = 24
_TIES = 1 << _TIE_BITS
_OUTER_POOL = 1 << (_TIE_BITS + 5)
_NONE = -1
# A support that equals the proximity threshold but for rounding reaches it.
_TOLERANCE = 1e-9
# Counts of written neighbours are stored as 5 * edge + diagonal, each 0..4.
_EDGE = 5


@dataclass(frozen=True)
class LocalityDraws:
    """All random draws behind a batch of B orders on N positions in K groups.

    first: int [B], the raster position of the first group (not read with a prefilled context).
    tie_rank: int [B, K, N], or a function from the step to [B, N]: among positions of equal support in that
        step the smaller one goes first. Entries of written positions are ignored; others are in 0..2**24 - 1.
    fps_first: int [B, K], the raster position that starts the farthest-point fill of a group without members;
        None takes the free position with the smallest ``tie_rank``, which is uniform and independent of the
        order among the others.
    """

    first: np.ndarray
    tie_rank: np.ndarray | Callable[[int], np.ndarray]
    fps_first: np.ndarray | None = None

    @classmethod
    def from_streams(cls, streams: Streams, positions: int, steps: int) -> "LocalityDraws":
        """Fresh draws; those of an image depend on (seed, image) alone."""
        # Multiples of 2**-24, [B, 1 + K N]: scaled up, they are tie ranks without rounding.
        uniform = streams.uniform("locality order", 1 + steps * positions)
        first = (uniform[:, 0].astype(np.float64) * positions).astype(np.int64)

        def tie_rank(step: int) -> np.ndarray:
            start = 1 + step * positions
            return (uniform[:, start : start + positions] * np.float32(_TIES)).astype(np.int32)

        return cls(first, tie_rank)

    def ties(self, step: int) -> np.ndarray:
        """Tie ranks of one step, int [B, N]."""
        return self.tie_rank(step) if callable(self.tie_rank) else self.tie_rank[:, step]


def locality_orders(
    grid_side: int,
    sizes: Sequence[int],
    proximity: float,
    repulsion: float,
    draws: LocalityDraws,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """One order per row of ``draws``, int64 [B, N]: the raster position generated at each of N places.

    N is ``grid_side``**2. ``sizes`` are the group sizes, the first of them 1. Positions with support of
    at least ``proximity`` are accepted first; accepted members of a group are more than ``repulsion``
    rows or columns apart (0: no repulsion). The published settings have proximity 1 and repulsion 2, 3 or
    4.

    ``known`` [M] or [B, M] are raster positions of a prefilled context: they take the first M places as
    given, ``sizes`` then sum to N - M, and every group, the first too, follows the ordinary rule.

    Raises ``ValueError`` for sizes that don't fit the grid, unusable thresholds or draws of the wrong shape.
    """
    batch = len(draws.first)
    total = grid_side * grid_side
    context = _context(grid_side, sizes, draws, known)  # [B, M]
    _check_draws(draws, total, len(sizes))
    _check_thresholds(proximity, repulsion)
    orders = np.empty((batch, total), dtype=np.int64)
    given = context.shape[1]
    orders[:, :given] = context
    starts = given + np.cumsum([0, *sizes])
    growth = _Growth(grid_side, proximity, repulsion, batch)
    growth.write(context)
    for step, size in enumerate(sizes):
        if step == 0 and given == 0:
            group = np.asarray(draws.first, dtype=np.int64)[:, None]  # [B, 1]
        else:
            growth.rank(draws.ties(step))
            forced = None if draws.fps_first is None else draws.fps_first[:, step]
            group = growth.group(size, forced, is_last=step == len(sizes) - 1)  # [B, size]
        orders[:, starts[step] : starts[step + 1]] = group
        growth.write(group)
    return orders


class _Growth:
    """What is written so far on B grids of N positions, and the candidates of the current step."""

    def __init__(self, side: int, proximity: float, repulsion: float, batch: int) -> None:
        self.side, self.batch = side, batch
        self.total = side * side
        self.rows = np.arange(batch)
        self.free = np.ones((batch, self.total), dtype=bool)
        # One margin cell ends every row and one row of margin closes both ends: no neighbour wraps around.
        self.width = side + 1
        self.margin = side + 2
        self.canvas = np.zeros((batch, side * self.width + 2 * self.margin), dtype=np.uint8)
        self.level_keys, self.is_near = _levels(proximity)
        self.pool_keys = self.level_keys + np.where(self.is_near, 0, _OUTER_POOL).astype(np.int32)
        self.neighbourhood = _neighbourhoods(side, math.floor(min(repulsion, side)))  # [N, cells]
        self.distances = _squared_distances(side)  # [N, N]

    def write(self, positions: np.ndarray) -> None:
        """Adds positions [B, g] to the context of the following steps."""
        self.free[self.rows[:, None], positions] = False
        row, column = np.divmod(positions, self.side)
        self.canvas[self.rows[:, None], self.margin + row * self.width + column] = 1

    def rank(self, ties: np.ndarray) -> None:
        """Keys int32 [B, N]: ``near`` for acceptance, ``pool`` for the fill; -1 for positions not in it."""
        if ties.shape != (self.batch, self.total):
            raise ValueError(f"tie ranks of shape {ties.shape} in one step, not {(self.batch, self.total)}")
        if ((ties >> _TIE_BITS != 0) & self.free).any():
            raise ValueError(f"tie ranks of free positions must lie in 0..{_TIES - 1}")
        counts = self._neighbour_counts()
        late = (_TIES - 1) - ties.astype(np.int32, copy=False)
        self.pool = np.take(self.pool_keys, counts)
        self.pool += late
        self.pool[~self.free] = _NONE
        self.near = np.where(self.pool < _OUTER_POOL, self.pool, np.int32(_NONE))

    def _neighbour_counts(self) -> np.ndarray:
        """5 * edge + diagonal neighbours written, uint8 [B, N]."""
        length = self.side * self.width

        def shifted(offset: int) -> np.ndarray:
            return self.canvas[:, self.margin + offset : self.margin + offset + length]

        below = self.width
        counts = shifted(-below) + shifted(below)
        counts += shifted(-1)
        counts += shifted(1)
        counts *= _EDGE
        for offset in (-below - 1, -below + 1, below - 1, below + 1):
            counts += shifted(offset)
        return counts.reshape(self.batch, self.side, self.width)[:, :, : self.side].reshape(
            self.batch, self.total
        )

    def group(self, size: int, forced: np.ndarray | None, is_last: bool) -> np.ndarray:
        """The members of one group, int64 [B, size]: accepted ones in their order, then fills in theirs."""
        members = np.zeros((self.batch, size), dtype=np.int64)
        accepted = self._accept(members)  # [B]
        if is_last:
            self._take_all(members, accepted)
        elif accepted.min() < size:
            self._fill(members, accepted, forced)
        return members

    def _accept(self, members: np.ndarray) -> np.ndarray:
        near = self.near
        flat = near.reshape(-1)
        accepted = np.zeros(self.batch, dtype=np.int64)
        rows = self.rows
        for place in range(members.shape[1]):
            best = near.argmax(axis=1)[rows]
            going = near[rows, best] >= 0
            if not going.all():
                rows, best = rows[going], best[going]
                if not len(rows):
                    break
            members[rows, place] = best
            accepted[rows] += 1
            flat[self.neighbourhood[best] + rows[:, None] * self.total] = _NONE
        return accepted

    def _take_all(self, members: np.ndarray, accepted: np.ndarray) -> None:
        """The last group holds whatever is left: accepted members, then the pool in its own order."""
        size = members.shape[1]
        taken = np.arange(size) < accepted[:, None]  # [B, size]
        row, _ = np.nonzero(taken)
        self.pool[row, members[taken]] = _NONE
        left = np.nonzero(self.free)[1].reshape(self.batch, size)
        keys = np.take_along_axis(self.pool, left, axis=1)
        ranked = np.take_along_axis(
            left, np.argsort(-keys, axis=1, kind="stable"), axis=1
        )  # the accepted come last
        row, place = np.nonzero(~taken)
        members[row, place] = ranked[row, place - accepted[row]]

    def _fill(self, members: np.ndarray, accepted: np.ndarray, forced: np.ndarray | None) -> None:
        """Farthest-point selection where members are missing; rows that miss most come first throughout."""
        size = members.shape[1]
        rows = np.argsort(accepted, kind="stable")
        have = accepted[rows]
        count = int(np.searchsorted(have, size))
        rows, have = rows[:count], have[:count]
        chosen, pool = members[rows], self.pool[rows]  # [R, size], [R, N]
        empty = int(np.searchsorted(have, 1))
        if empty:
            chosen[:empty, 0] = self._first_fill(rows[:empty], pool[:empty], forced)
            have[:empty] = 1
        nearest = self.distances[chosen[:, 0]]  # [R, N], squared distance to the closest member
        for place in range(1, int(have[-1])):
            since = int(np.searchsorted(have, place, side="right"))
            np.minimum(nearest[since:], self.distances[chosen[since:, place]], out=nearest[since:])
        # Members are at distance 0 from themselves, and the pool outlasts the group: none is chosen twice.
        nearest[pool < 0] = _NONE
        for turn in range(size - int(have[0])):
            count = int(np.searchsorted(have, size - turn))
            far = nearest[:count]
            ties = np.where(far == far.max(axis=1, keepdims=True), pool[:count], np.int32(_NONE))
            best = ties.argmax(axis=1)
            chosen[np.arange(count), have[:count] + turn] = best
            np.minimum(far, self.distances[best], out=far)
        members[rows] = chosen

    def _first_fill(self, rows: np.ndarray, pool: np.ndarray, forced: np.ndarray | None) -> np.ndarray:
        if forced is None:
            return np.where(pool < 0, np.int32(_NONE), pool & (_TIES - 1)).argmax(axis=1)
        first = forced[rows]
        if (first < 0).any() or (first >= self.total).any() or not self.free[rows, first].all():
            raise ValueError("fps_first names no free position for a group whose fill starts at random")
        return first


def _context(side: int, sizes: Sequence[int], draws: LocalityDraws, known: np.ndarray | None) -> np.ndarray:
    """The prefilled context of every row, int64 [B, M], after checking that it and the sizes fit the grid."""
    if side < 1:
        raise ValueError(f"a grid of side {side} has no positions")
    total, batch = side * side, len(draws.first)
    given = np.empty(0, np.int64) if known is None else np.asarray(known, dtype=np.int64)
    if given.ndim not in (1, 2) or (given.ndim == 2 and len(given) != batch):
        raise ValueError(f"known positions of shape {given.shape}: [M] or [{batch}, M] is needed")
    context = np.broadcast_to(given, (batch, given.shape[-1]))
    if context.size and (context.min() < 0 or context.max() >= total):
        raise ValueError(f"known positions must lie in 0..{total - 1}")
    if (np.diff(np.sort(context, axis=1), axis=1) == 0).any():
        raise ValueError("known positions must differ from one another")
    unknown = total - context.shape[1]
    if any(size < 1 for size in sizes) or sum(sizes) != unknown:
        raise ValueError(f"group sizes must be positive and sum to {unknown}; these sum to {sum(sizes)}")
    if not context.shape[1] and sizes[0] != 1:
        raise ValueError(f"the first group of a locality order holds one position, not {sizes[0]}")
    return context


def _check_draws(draws: LocalityDraws, total: int, steps: int) -> None:
    first, batch = np.asarray(draws.first), len(draws.first)
    if first.ndim != 1 or not batch:
        raise ValueError(f"first positions of shape {first.shape}: one per order is needed")
    if first.min() < 0 or first.max() >= total:
        raise ValueError(f"first positions must lie in 0..{total - 1}")
    if not callable(draws.tie_rank) and draws.tie_rank.shape != (batch, steps, total):
        raise ValueError(f"tie ranks of shape {draws.tie_rank.shape}, not {(batch, steps, total)}")
    if draws.fps_first is not None and draws.fps_first.shape != (batch, steps):
        raise ValueError(f"fps_first of shape {draws.fps_first.shape}, not {(batch, steps)}")


def _check_thresholds(proximity: float, repulsion: float) -> None:
    if math.isnan(proximity):
        raise ValueError("the proximity threshold must be a number")
    if not repulsion >= 0:
        raise ValueError(f"the repulsion threshold must be at least 0, not {repulsion}")


def _levels(proximity: float) -> tuple[np.ndarray, np.ndarray]:
    """Per neighbour count [25]: its key (shifted rank of the support), whether it reaches the threshold."""
    edge, diagonal = np.divmod(np.arange(25), _EDGE)
    support = edge + diagonal * math.sqrt(0.5)
    rank = np.argsort(np.argsort(support))
    return (rank << _TIE_BITS).astype(np.int32), support >= proximity - _TOLERANCE


@lru_cache(maxsize=4)
def _neighbourhoods(side: int, radius: int) -> np.ndarray:
    """Per position the cells up to ``radius`` rows and columns away, [N, cells]; itself for those outside."""
    offsets = np.arange(-radius, radius + 1)
    position = np.arange(side * side)
    row = (position // side)[:, None, None] + offsets[:, None]  # [N, offsets, 1]
    column = (position % side)[:, None, None] + offsets  # [N, 1, offsets]
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    cells = np.where(inside, row * side + column, position[:, None, None]).reshape(side * side, -1)
    cells.flags.writeable = False
    return cells


@lru_cache(maxsize=4)
def _squared_distances(side: int) -> np.ndarray:
    """Squared Euclidean distance of every pair of positions, int16 or int32 [N, N]."""
    steps = np.arange(side) ** 2
    position = np.arange(side * side)
    row, column = np.divmod(position, side)
    squared = steps[abs(row[:, None] - row)] + steps[abs(column[:, None] - column)]
    squared = squared.astype(np.int16 if squared.max() < 2**15 else np.int32)
    squared.flags.writeable = False
    return squared
