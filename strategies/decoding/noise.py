"""Which number a draw consumes: u(seed, image, position, purpose, visit)."""

from copy import copy

import torch
from torch import Tensor

from strategies.decoding.requests import Places
from strategies.decoding.sampling import Sampler


class Numbers:
    """The numbers of one decode by place; remembers how often each place was visited for a purpose.

    Visits are counted per image, so an image meets the same numbers at whatever pace its batch goes on.
    """

    def __init__(self, sampler: Sampler, order: Tensor, most_visits: int | None = None) -> None:
        """order: position at each place, int64 [B, N]. most_visits: of a place for one purpose, if known."""
        self.sampler, self.order, self.most_visits = sampler, order, most_visits
        self.own = sampler.noise(order)
        self.fresh: dict[str, Visited] = {}

    def on(self, own: Tensor, order: Tensor) -> "Numbers":
        """Of other images, whose places' own numbers are ``own`` [B, N]; none of them handed out."""
        other = copy(self)
        other.own, other.order, other.fresh = own, order, {}
        return other

    def of_places(self, at: Places) -> Tensor:
        """The places' own numbers, the same whenever asked: [B, n]."""
        return self.own[:, at] if isinstance(at, slice) else self.own.gather(1, at.clamp(min=0))

    def next(self, purpose: str, at: Places) -> Tensor:
        """Numbers that no earlier call handed out: [B, n]. A place is at most once in ``at``."""
        if purpose not in self.fresh:
            first = self.own if purpose == "token" else self.sampler.noise(self.order, purpose)
            self.fresh[purpose] = Visited(first)
        visited = self.fresh[purpose]
        if visited.calls == visited.layers and visited.layers != self.most_visits:
            visited.add(self.sampler.noise(self.order, purpose, visited.layers))
        return visited.take(at)

    def require_enough(self) -> None:
        """ValueError where a number was handed out twice, against what the plan says of visits."""
        for purpose, visited in self.fresh.items():
            most = int(visited.visits[:, :-1].max())
            if most > visited.layers:
                raise ValueError(
                    f"a place was visited {most} times for '{purpose}', its plan says {self.most_visits}"
                )


class Visited:
    """Layers of numbers [B, N], one for each visit that a place can have had, and the visits so far."""

    def __init__(self, first: Tensor) -> None:
        self.store = first[None].clone()  # [capacity, B, N]
        self.layers, self.calls = 1, 0
        batch, places = first.shape
        # One column more for what is no place.
        self.visits = torch.zeros(batch, places + 1, dtype=torch.int64, device=first.device)

    def add(self, layer: Tensor) -> None:
        if self.layers == len(self.store):
            self.store = torch.cat([self.store, torch.empty_like(self.store)])
        self.store[self.layers] = layer
        self.layers += 1

    def take(self, at: Places) -> Tensor:
        self.calls += 1
        batch, places = self.store.shape[1:]
        columns = torch.arange(places, device=self.store.device)
        at = (
            columns[at].expand(batch, -1) if isinstance(at, slice) else at % (places + 1)
        )  # -1: the last column
        visit = self.visits.gather(1, at)
        self.visits.scatter_add_(1, at, torch.ones_like(at))
        rows = torch.arange(batch, device=at.device)[:, None]
        return self.store[visit.clamp(max=self.layers - 1), rows, at.clamp(max=places - 1)]
