"""Resolution extrapolation: a g x g network fills a 2g x 2g grid around what it drew at g x g.

Source: RandAR (Pang et al., arXiv 2412.01827). The network is told what its positions mean on the large grid
(``RandARNetwork.enlarged``).
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding.base import Strategy
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.guidance import Guidance, linear_guidance
from strategies.decoding.plan import Plan, known_first
from strategies.decoding.sampling import Sampler
from strategies.decoding.schedules import randar_sizes
from strategies.decoding.streams import Streams
from strategies.randar import RandAR, RandARNetwork


@dataclass(frozen=True, eq=False)
class ContextGuidance:
    """Guidance by the class and by the given tokens: u + s (c - p) + t (p - u).

    c: the class, p: no class, u: no class and a thinned context. kept: bool [B, given], the given places
    whose tokens u still sees.
    """

    by_class: Guidance
    by_context: Guidance
    kept: np.ndarray

    def scales(self, progress: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, ...]:
        return self.by_class.weights_at(progress, count), self.by_context.weights_at(progress, count)


@dataclass(frozen=True, eq=False)
class ThinnedRandAR(RandAR):
    """RandAR whose last branch of guidance doesn't see all given tokens; kept: bool [B, given]."""

    kept: np.ndarray | None = None

    def embed_known(self, network: RandARNetwork, known: Tensor) -> Tensor:
        seen = torch.ones(known.shape, dtype=torch.bool, device=known.device)
        if self.kept is not None:
            seen[-len(self.kept) :] = torch.as_tensor(self.kept, device=known.device)
        return super().embed_known(network, known) * seen.unsqueeze(-1)


def thinned(strategy: RandAR, guidance: Guidance | ContextGuidance | None) -> RandAR:
    """The strategy that decodes under ``guidance``: one that thins the context where that asks for it."""
    if not isinstance(guidance, ContextGuidance):
        return strategy
    options = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    return ThinnedRandAR(**options, kept=guidance.kept)


def require_randar(strategy: Strategy) -> RandAR:
    """UserError for a strategy whose network can't be enlarged."""
    if not isinstance(strategy, RandAR):
        raise UserError(f"strategy '{strategy.name}': resolution extrapolation is RandAR's; valid: randar")
    return strategy


@dataclass(frozen=True)
class Extrapolation:
    """Settings of the second pass; scales (a, b) run linearly with the share of the large grid."""

    steps: int = 1024
    class_scales: tuple[float, float] = (3.0, 3.0)
    context_scales: tuple[float, float] = (2.5, 2.5)
    thinned: float = 0.5
    """Share of the small image's tokens that the weakest branch of guidance does not see."""
    boundary: int = 2
    """Highest rotary frequencies that go on beyond the trained positions."""

    def guidance(self, given: int, streams: Streams) -> Guidance | ContextGuidance | None:
        """By class and context where both end above 1, by class where only that does, else none."""
        by_class = linear_guidance(self.class_scales)
        by_context = linear_guidance(self.context_scales)
        if by_class is None or by_context is None:
            return by_class
        rank = streams.uniform("context", given).argsort(axis=1, kind="stable").argsort(axis=1)
        return ContextGuidance(by_class, by_context, kept=rank >= int(given * self.thinned))

    def plan(self, grid: tuple[int, int], order: np.ndarray) -> Plan:
        """The second pass of a network of ``grid``: sizes and clock count over the large grid."""
        given = grid[0] * grid[1]
        sizes = randar_sizes(4 * given, self.steps, written=given)
        starts = (given + np.cumsum(sizes) - sizes) / (4 * given)
        progress = np.concatenate([np.zeros(given), np.repeat(starts, sizes)])
        return Plan((2 * grid[0], 2 * grid[1]), order, sizes, given, progress=progress)


def large_orders(grid: tuple[int, int], streams: Streams) -> np.ndarray:
    """Orders [B, 4N] over the grid of twice the side: cells of even row and column, then all others."""
    cells = np.arange(4 * grid[0] * grid[1]).reshape(2 * grid[0], 2 * grid[1])
    return known_first(streams.permutations(cells.size), cells[::2, ::2].ravel())


def small_orders(grid: tuple[int, int], orders: np.ndarray) -> np.ndarray:
    """The orders [B, N] in which the first pass draws the even cells of large orders [B, 4N]."""
    row, column = np.divmod(orders[:, : grid[0] * grid[1]], 2 * grid[1])
    return row // 2 * grid[1] + column // 2


def spread(grid: tuple[int, int], tokens: Tensor) -> Tensor:
    """Tokens [B, N] at the even cells of the large grid, zeros elsewhere: [B, 4N]."""
    large = tokens.new_zeros(len(tokens), 2 * grid[0], 2 * grid[1])
    large[:, ::2, ::2] = tokens.unflatten(1, grid)
    return large.flatten(1)


def extrapolate(
    large: RandARNetwork,
    strategy: RandAR,
    plan: Plan,
    labels: Tensor,
    small: Tensor,
    sampler: Sampler,
    guidance: Guidance | ContextGuidance | None,
    published_tail: bool = False,
) -> Decoded:
    """The second pass: the large grid around tokens ``small`` [B, N], by a plan of ``Extrapolation.plan``.

    large: the network on the grid of the plan. published_tail: leave the codes of the last group 0, as the
    published script does, which never decodes it.
    """
    known = spread((plan.grid[0] // 2, plan.grid[1] // 2), small)
    found = decode(large, thinned(strategy, guidance), plan, labels, sampler, guidance, known)
    if not published_tail:
        return found
    last = torch.as_tensor(plan.order, device=labels.device).expand(len(labels), -1)[:, plan.groups()[-1]]
    return replace(found, tokens=found.tokens.scatter(1, last, 0))
