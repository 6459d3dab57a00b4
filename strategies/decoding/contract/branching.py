"""Every branch of a decode whose steps depend on what was drawn, with its exact probability.

A branch is a script of outcomes: of draws, redraws, and of what is asked of uniform numbers. It is replayed
as one row of a batch; where its script ends it goes on by the likeliest outcomes, and every other outcome on
the way is a branch to be replayed later. So each branch is met exactly once, and the branches are as
independent as the images of a batch, which is a check of its own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backbones.networks import Networks
from backbones.transformer import Network
from strategies.decoding.base import Strategy
from strategies.decoding.contract.racing import after, unbounded
from strategies.decoding.contract.requirements import Broken
from strategies.decoding.decode import Decoded, Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Ask, Commit, Decoding, Draft, Places, Redraw, Uniform
from strategies.decoding.sampling import Sampler

SMALLEST = 1e-12
"""Branches of less probability are left out."""
AT_ONCE = 4096
"""Branches of one decode."""

Scripts = Tensor
"""Outcomes of each branch, int64 [B, D], -1 after the last."""


class Silent:
    """A sampler that draws nothing: the outcomes come from a script."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sampler, name)

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        return torch.zeros(order.shape)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(noise.shape, dtype=torch.int64), logits.sum(dim=-1)

    def draw_from(self, probs: Tensor, noise: Tensor) -> Tensor:
        return torch.zeros(noise.shape, dtype=torch.int64)

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        return torch.zeros(positions.shape, dtype=torch.int64)


class Branches:
    """The rows of one decode, each along its script."""

    def __init__(self, scripts: Scripts) -> None:
        self.scripts = scripts
        self.path = scripts.clone()
        self.length = torch.zeros(len(scripts), dtype=torch.int64)
        self.mass = torch.ones(len(scripts), dtype=torch.float64)
        self.others: list[tuple[Tensor, Tensor, Tensor]] = []
        """(row, number of outcomes before, outcome) of the branches to be replayed later."""
        self.rows = torch.arange(len(scripts))

    def take(self, probs: Tensor) -> Tensor:
        """The unlikeliest possible outcome [B], alike in all rows: a condition of everything else, no branch.

        Errors show where distributions are far apart, so not behind the likeliest.
        """
        return probs.masked_fill(probs <= 0, 2.0).argmin(dim=1)[:1].expand(len(probs))

    def decide(self, live: Tensor, probs: Tensor) -> Tensor:
        """An outcome for each live row, [B], of probabilities [B, K]; 0 for the others."""
        if int(self.length.max()) == self.path.shape[1]:
            more = torch.full_like(self.path, -1)
            self.path, self.scripts = torch.cat([self.path, more], 1), torch.cat([self.scripts, more], 1)
        scripted = self.scripts[self.rows, self.length]
        # What a row that decides nothing here has next in its script belongs to another decision.
        chosen = torch.where(live, torch.where(scripted >= 0, scripted, probs.argmax(dim=1)), 0)
        free = live & (scripted < 0)
        masses = self.mass[:, None] * probs
        other = free[:, None] & (torch.arange(probs.shape[1]) != chosen[:, None])
        row, outcome = (other & (masses >= SMALLEST)).nonzero(as_tuple=True)
        self.others.append((row, self.length[row], outcome))
        self.path[self.rows[live], self.length[live]] = chosen[live]
        self.mass = torch.where(live, masses[self.rows, chosen], self.mass)
        self.length = self.length + live
        return chosen

    def later(self) -> list[Scripts]:
        """Scripts of the branches that were met and not taken."""
        found = []
        for row, before, outcome in self.others:
            scripts = torch.where(torch.arange(self.path.shape[1]) < before[:, None], self.path[row], -1)
            scripts[torch.arange(len(row)), before] = outcome
            found.append(scripts)
        return found


class Number:
    """Uniform numbers that are never drawn: entries [B, n] of intervals in which they are known to lie.

    What is asked of them branches: comparisons (u < p, u * q < p), and codes, (u * codes).long().
    """

    def __init__(
        self, branches: Branches, low: Tensor, high: Tensor, live: Tensor, index: Tensor, scale: Any = 1.0
    ) -> None:
        """low, high: of all entries, flat; index: which of them these are."""
        self.branches, self.low, self.high, self.live = branches, low, high, live
        self.index, self.scale = index, scale

    @classmethod
    def fresh(cls, branches: Branches, live: Tensor) -> "Number":
        entries = live.numel()
        low, high = torch.zeros(entries, dtype=torch.float64), torch.ones(entries, dtype=torch.float64)
        return cls(branches, low, high, live.flatten(), torch.arange(entries).view(live.shape))

    def fall(self, ends: Tensor) -> Tensor:
        """In which of the intervals that end at ``ends`` [..., K] each entry lies, int64 [...]."""
        found = torch.zeros_like(self.index)
        if not self.index.numel():
            return found
        columns = self.index.view(len(self.index), -1)
        bounds = ends.view(*columns.shape, -1)
        for column in range(columns.shape[1]):
            entry = columns[:, column]
            low, high = self.low[entry, None], self.high[entry, None]
            upper = bounds[:, column].clamp(min=low, max=high)
            lower = torch.cat([low, upper[:, :-1]], dim=1)
            chosen = self.branches.decide(self.live[entry], (upper - lower) / (high - low))
            found.view(columns.shape)[:, column] = chosen
            self.low[entry] = lower.gather(1, chosen[:, None]).squeeze(1)
            self.high[entry] = upper.gather(1, chosen[:, None]).squeeze(1)
        return found

    def below(self, bound: Any) -> Tensor:
        """Whether the scaled number is below ``bound``, bool [...]."""
        limit = torch.as_tensor(bound, dtype=torch.float64) / self.scale
        limit = limit.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1).expand(self.index.shape)
        return self.fall(torch.stack([limit, torch.ones_like(limit)], dim=-1)) == 0

    def long(self) -> Tensor:
        """The scaled number without its fraction; the scale is a number of codes."""
        codes = int(self.scale)
        ends = (torch.arange(codes, dtype=torch.float64) + 1) / codes
        return self.fall(ends.expand(*self.index.shape, codes))

    def floor(self) -> "Number":
        return self

    def __mul__(self, scale: Any) -> "Number":
        return Number(self.branches, self.low, self.high, self.live, self.index, self.scale * scale)

    __rmul__ = __mul__

    def __getitem__(self, part: Any) -> "Number":
        return Number(self.branches, self.low, self.high, self.live, self.index[part], self.scale)

    def __lt__(self, bound: Any) -> Tensor:
        return self.below(bound)

    def __ge__(self, bound: Any) -> Tensor:
        return ~self.below(bound)

    __le__, __gt__ = __lt__, __ge__

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """A tensor on the left of an operator."""
        name = function.__name__.strip("_")
        mirrored = {"gt": "__lt__", "ge": "__le__", "lt": "__gt__", "le": "__ge__", "mul": "__mul__"}
        if name in mirrored and len(args) == 2 and isinstance(args[1], Number):
            return getattr(args[1], mirrored[name])(args[0])
        straight = {"lt": "__lt__", "le": "__le__", "gt": "__gt__", "ge": "__ge__", "mul": "__mul__"}
        if name in straight and len(args) == 2:
            return getattr(args[0], straight[name])(args[1])
        raise _unknown(name)

    def __getattr__(self, name: str) -> Any:
        raise _unknown(name)


def _unknown(name: str) -> Broken:
    return Broken(
        f"a uniform number is used in '{name}', whose outcomes can't be enumerated; those of u < p, "
        "u * q < p and (u * codes).long() can"
    )


class Branching:
    """A strategy whose draws, redraws and uniform numbers follow the scripts of ``branches``."""

    def __init__(self, strategy: Strategy, branches: Branches, first_given: bool = False) -> None:
        """first_given: a token that is asked for alone, before anything is decided, is the unlikeliest."""
        self.strategy, self.branches, self.first_given = strategy, branches, first_given

    def __getattr__(self, name: str) -> Any:
        return getattr(self.strategy, name)

    def decode(self, network: Network | Networks, plan: Plan, rows: Rows) -> Decoding:
        batch = len(rows) // rows.branches
        # A place's own number is one and the same at every visit; so is that of its first fresh visit.
        self.own = Number.fresh(self.branches, torch.ones(batch, plan.places, dtype=torch.bool))
        self.visited = torch.zeros(batch, plan.places + 1, dtype=torch.bool)
        self.races: Tensor | None = None
        """Bounds [B, N, V, V] of the places' numbers by code."""
        inner = self.strategy.decode(network, plan, rows)
        answer: Any = None
        while True:
            try:
                request = inner.send(answer)
            except StopIteration:
                return
            if isinstance(request, Ask):
                drawn = yield Draft(request.logits, request.at, "place")
                if self.first_given and request.at == slice(0, 1) and not self.branches.length.any():
                    tokens = self.branches.take(drawn.probs[:, 0])[:, None]
                else:
                    tokens = self.draw(request.at, drawn.probs, "place")
                yield Commit(request.at, tokens)
                answer = rows.repeat(tokens)
            elif isinstance(request, Draft):
                drawn = yield request
                answer = replace(drawn, tokens=self.draw(request.at, drawn.probs, request.noise))
            elif isinstance(request, Redraw):
                answer = self.draw(request.at, request.probs, "redraw")
            elif isinstance(request, Accept):
                answer = Number.fresh(self.branches, self.places(request.at) >= 0).below(request.chance)
            elif isinstance(request, Uniform):
                answer = Number.fresh(self.branches, self.places(request.at) >= 0)
            else:
                answer = yield request

    def places(self, at: Places) -> Tensor:
        """int64 [B, n]."""
        if isinstance(at, Tensor):
            return at
        return torch.arange(self.own.index.shape[1])[at].expand(len(self.own.index), -1)

    def draw(self, at: Places, probs: Tensor, noise: str) -> Tensor:
        """Tokens [B, n] of weights [B, n, V]."""
        places = self.places(at)
        live = places >= 0
        weights = probs.double()
        if noise == "gumbel":
            return self.race(places, live, weights)
        ends = weights.cumsum(dim=-1) / weights.sum(dim=-1, keepdim=True).clamp(min=1e-300)
        ends[..., -1] = 1.0
        own = live & (noise == "place")
        if noise == "fresh":
            own = live & ~self.visited.gather(1, places % self.visited.shape[1])
            self.visited.scatter_(1, places % self.visited.shape[1], True)
        fresh = Number.fresh(self.branches, live & ~own)
        tokens = fresh.fall(ends)
        if own.any():
            taken = self.own.live.clone()
            number = self.own[torch.arange(len(places))[:, None], places.clamp(min=0)]
            number.live = _spread(taken, number.index, own)
            tokens = torch.where(own, number.fall(ends), tokens)
        return tokens

    def race(self, places: Tensor, live: Tensor, weights: Tensor) -> Tensor:
        """Tokens [B, n] that win by the places' numbers of each code, the same at every visit."""
        codes = weights.shape[-1]
        if self.races is None:
            self.races = unbounded(*self.own.index.shape, codes, codes)
        tokens, rows = torch.zeros_like(places), torch.arange(len(places))
        for column, at in enumerate(places.clamp(min=0).T):
            here = live[:, column]
            bounds, odds = after(self.races[rows, at], weights[:, column])
            tokens[:, column] = self.branches.decide(here, odds)
            self.races[rows[here], at[here]] = bounds[rows, tokens[:, column]][here]
        return tokens


def _spread(live: Tensor, index: Tensor, wanted: Tensor) -> Tensor:
    """Entries that are to be decided: those at ``index`` [B, n] which are ``wanted`` [B, n]."""
    return torch.zeros_like(live).scatter(0, index[wanted], True)


def all_branches(
    strategy: Strategy, decode_rows: Callable[[Strategy, int], Decoded], most: int, first_given: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [M, N], steps [M] and probabilities [M] of all branches; of about ``most`` if there are more.

    decode_rows: decodes a strategy for so many rows. first_given: as ``Branching`` takes it. What the
    probabilities lack of 1 was left out.
    """
    waiting = [torch.full((1, 32), -1)]
    tokens: list[Tensor] = []
    steps: list[Tensor] = []
    masses: list[Tensor] = []
    while waiting and sum(len(part) for part in tokens) < most:
        width = max(scripts.shape[1] for scripts in waiting)
        together = torch.cat(
            [torch.nn.functional.pad(scripts, (0, width - scripts.shape[1]), value=-1) for scripts in waiting]
        )
        now, later = together[:AT_ONCE], together[AT_ONCE:]
        branches = Branches(now)
        decoded = decode_rows(Branching(strategy, branches, first_given), len(now))  # type: ignore[arg-type]
        tokens.append(decoded.tokens)
        steps.append(decoded.steps_of_image)
        masses.append(branches.mass)
        waiting = [scripts for scripts in (*branches.later(), later) if len(scripts)]
    return torch.cat(tokens), torch.cat(steps), torch.cat(masses)
