"""Attention of a taught pass on the CPU in bfloat16, with its gradient: batched products, tile by tile.

The fused kernel's bfloat16 gradient is slower than its float32 one, and neither skips what a mask hides. Here
rows go in tiles, a tile reads only the columns that one of its rows sees, and what it makes stays in cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

TILE = 64
HIDDEN = -1e30
"""Added to a score that must not count."""


@dataclass(frozen=True)
class Tile:
    """Rows that are attended together."""

    rows: slice
    columns: tuple[slice, ...]
    """Disjoint, ascending: what at least one of the rows sees."""
    hidden: Tensor | None
    """bfloat16 [n, m] over these rows and columns: 0 or ``HIDDEN``; None where all is seen."""


def tiles_of(seen: Tensor) -> tuple[Tile, ...]:
    """Tiles of a boolean mask [n, m]; every row must see something."""
    tiles = []
    for first in range(0, len(seen), TILE):
        rows = slice(first, min(first + TILE, len(seen)))
        columns = _runs(seen[rows].any(dim=0))
        part = torch.cat([seen[rows, run] for run in columns], dim=1)
        hidden = None
        if not part.all():
            hidden = torch.zeros(part.shape, dtype=torch.bfloat16).masked_fill_(~part, HIDDEN)
        tiles.append(Tile(rows, columns, hidden))
    return tuple(tiles)


def _runs(wanted: Tensor) -> tuple[slice, ...]:
    """The wanted places [m] as runs; gaps shorter than a quarter tile are read along."""
    places = wanted.nonzero().flatten()
    breaks = (places.diff() > TILE // 4).nonzero().flatten().tolist()
    starts = [0, *(at + 1 for at in breaks)]
    ends = [*(at + 1 for at in breaks), len(places)]
    return tuple(slice(int(places[a]), int(places[b - 1]) + 1) for a, b in zip(starts, ends, strict=True))


@lru_cache(maxsize=4)
def causal_tiles(rows: int) -> tuple[Tile, ...]:
    return tiles_of(torch.ones(rows, rows, dtype=torch.bool).tril())


def attend_taught(queries: Tensor, keys: Tensor, values: Tensor, tiles: Sequence[Tile]) -> Tensor:
    """Attention of bfloat16 queries [R, H, n, D] over keys and values [R, H, m, D]: [R, H, n, D]."""
    flat = (part.flatten(0, 1) for part in (queries, keys, values))
    mixed: Tensor = _Attention.apply(*flat, tiles)
    return mixed.unflatten(0, queries.shape[:2])


def _read(x: Tensor, columns: tuple[slice, ...]) -> Tensor:
    parts = [x[:, run] for run in columns]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _add(total: Tensor, columns: tuple[slice, ...], part: Tensor) -> None:
    done = 0
    for run in columns:
        width = run.stop - run.start
        total[:, run] += part[:, done : done + width]
        done += width


class _Attention(torch.autograd.Function):
    """Probabilities are kept, so the gradient needs no second softmax."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, tiles: Sequence[Tile]) -> Tensor:
        queries = queries * queries.shape[-1] ** -0.5
        out, kept = torch.empty_like(queries), []
        for tile in tiles:
            near = _read(keys, tile.columns).transpose(1, 2)  # [R*H, D, m]
            if tile.hidden is None:
                scores = torch.bmm(queries[:, tile.rows], near)
            else:
                scores = torch.baddbmm(tile.hidden, queries[:, tile.rows], near)
            shares = scores.softmax(dim=-1)
            out[:, tile.rows] = torch.bmm(shares, _read(values, tile.columns))
            kept.append(shares)
        ctx.save_for_backward(queries, keys, values, out, *kept)
        ctx.tiles = tiles
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, out, *kept = ctx.saved_tensors
        # sum over columns of share * its slope, without going through the columns.
        means = (slope.float() * out.float()).sum(dim=-1, keepdim=True).to(slope.dtype)
        to_queries = torch.empty_like(queries)
        to_keys, to_values = torch.zeros_like(keys), torch.zeros_like(values)
        for tile, shares in zip(ctx.tiles, kept, strict=True):
            rows, columns = tile.rows, tile.columns
            near, here = _read(values, columns).transpose(1, 2), slope[:, rows]
            to_scores = torch.baddbmm(means[:, rows], here, near, beta=-1).mul_(shares)
            to_queries[:, rows] = torch.bmm(to_scores, _read(keys, columns))
            _add(to_keys, columns, torch.bmm(to_scores.transpose(1, 2), queries[:, rows]))
            _add(to_values, columns, torch.bmm(shares.transpose(1, 2), here))
        return to_queries.mul_(queries.shape[-1] ** -0.5), to_keys, to_values, None
