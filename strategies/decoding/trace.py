"""The trace of a decode: what was written at which step. All that says what happened is read off it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.decoding.requests import Places


@dataclass(frozen=True)
class Committed:
    """``tokens`` [B, n] written at ``places`` by step ``step``, where ``where`` [B, n] (None: all)."""

    step: int
    places: Places
    tokens: Tensor
    where: Tensor | None = None


@dataclass(frozen=True)
class Drafted:
    """``tokens`` [B, n] drawn for ``places`` by step ``step``, whatever became of them."""

    step: int
    places: Places
    tokens: Tensor


def places_of(entry: Committed | Drafted, batch: int, places: int) -> Tensor:
    """The places of an entry, int64 [B, n]; ``places`` where nothing was written (for a column of its own)."""
    if isinstance(entry.places, slice):
        columns = torch.arange(places, device=entry.tokens.device)[entry.places]
        at = columns.expand(batch, -1)
    else:
        at = torch.where(entry.places < 0, places, entry.places)
    where = getattr(entry, "where", None)
    return at if where is None else torch.where(where, at, places)


def step_of_position(trace: Sequence[Committed], order: Tensor) -> Tensor:
    """Step that last wrote each position, -1 where none did (given): int64 [B, N] for order [B, N]."""
    batch, places = order.shape
    steps = torch.full((batch, places + 1), -1, device=order.device)
    for entry in trace:
        at = places_of(entry, batch, places)
        steps.scatter_(1, at, torch.full_like(at, entry.step))
    return torch.empty_like(order).scatter_(1, order, steps[:, :places])


def tokens_after(trace: Sequence[Committed], order: Tensor, start: Tensor) -> list[Tensor]:
    """Tokens [B, N] by position after each step of the trace, from ``start`` [B, N] on."""
    batch, places = order.shape
    positions = torch.cat([order, torch.full_like(order[:, :1], places)], dim=1)
    now = torch.cat([start, torch.zeros_like(start[:, :1])], dim=1)
    after: dict[int, Tensor] = {}
    for entry in trace:
        now = now.scatter(1, positions.gather(1, places_of(entry, batch, places)), entry.tokens)
        after[entry.step] = now[:, :places]
    return list(after.values())
