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
    """The places of an entry, int64 [B, n]; ``places``, a column of its own, where nothing was written."""
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


def of_image(trace: Sequence[Committed], image: int) -> list[Committed]:
    """The entries of one image of the batch."""
    one = slice(image, image + 1)
    return [
        Committed(
            entry.step,
            entry.places if isinstance(entry.places, slice) else entry.places[one],
            entry.tokens[one],
            None if entry.where is None else entry.where[one],
        )
        for entry in trace
    ]


def states_after(trace: Sequence[Committed], order: Tensor, start: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Tokens [B, N] by position, and which of them are written, before the first and after each step.

    start: tokens of what nothing has written yet, [B, N].
    """
    batch, places = order.shape
    positions = torch.cat([order, torch.full_like(order[:, :1], places)], dim=1)
    tokens = torch.cat([start, torch.zeros_like(start[:, :1])], dim=1)
    written = torch.zeros_like(tokens, dtype=torch.bool)
    states = {-1: (tokens, written)}
    for entry in trace:
        at = positions.gather(1, places_of(entry, batch, places))
        tokens, written = tokens.scatter(1, at, entry.tokens), written.scatter(1, at, True)
        states[entry.step] = tokens, written
    return [(tokens[:, :places], written[:, :places]) for tokens, written in states.values()]
