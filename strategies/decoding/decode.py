"""The one loop: the only place where tokens are drawn, counted and recorded.

A strategy's ``decode`` is a generator. It yields an ``Ask`` for each group of places and is sent the drawn
tokens; guidance, filters, noise, counting and the trace are the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.transformer import Network, Trunk
from strategies.decoding.guidance import ContextGuidance, Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import Sampler

if TYPE_CHECKING:
    from strategies.decoding.base import Strategy


@dataclass(frozen=True)
class Ask:
    """Logits [R, n, V] (R = 2B under guidance: conditional rows, then unconditional; 3B under guidance by
    context) for places ``at``."""

    logits: Tensor
    at: slice


Decoding = Generator[Ask, Tensor, None]
"""What a strategy's ``decode`` is; it is sent tokens [R, n], repeated for all branches of guidance."""


@dataclass(frozen=True)
class Rows:
    """The rows of one decode as the network sees them.

    labels: int64 [R], all but the first branch being "no class" under guidance. order: int64 [R, N] or [1, N]
    raster position at each place. known: tokens [R, given] of the given places, or None. kept: bool
    [R, given], the given places whose tokens a row sees, or None for all.
    """

    labels: Tensor
    order: Tensor
    known: Tensor | None = None
    kept: Tensor | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]


@dataclass(frozen=True)
class Commit:
    """One entry of the trace: ``tokens`` [B, n] written at ``places`` by step ``step``."""

    step: int
    places: slice
    tokens: Tensor


@dataclass(frozen=True)
class Decoded:
    """tokens: int64 [B, N] in raster order. forwards: network calls; tokens_processed: rows through the
    trunk per image and guidance half; both counted by hooks, not claimed."""

    tokens: Tensor
    trace: tuple[Commit, ...]
    forwards: int
    tokens_processed: int

    @property
    def steps(self) -> int:
        return len(self.trace)


class Meter:
    """Counts a network's forward calls and the tokens that pass through its trunks."""

    def __init__(self, network: nn.Module) -> None:
        self.forwards = 0
        self.tokens = 0
        self._hooks = [network.register_forward_pre_hook(self._count_forward)]
        for module in network.modules():
            if isinstance(module, Trunk):
                self._hooks.append(module.register_forward_pre_hook(self._count_tokens))

    def _count_forward(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.forwards += 1

    def _count_tokens(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self.tokens += args[0].shape[1]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


def make_rows(
    plan: Plan,
    labels: Tensor,
    null_label: int,
    branches: int,
    known: Tensor | None,
    order: Tensor,
    guidance: Guidance | ContextGuidance | None,
) -> Rows:
    """Stack the branches of guidance: the labels, then "no class" in all others."""
    batch, kept = len(labels), None
    given = None
    if plan.given:
        if known is None:
            raise ValueError(f"the plan holds {plan.given} given places, but no known tokens came with it")
        given = known.gather(1, order.expand(len(labels), -1)[:, : plan.given])  # [B, given]
    if branches > 1:
        labels = torch.cat([labels, *[torch.full_like(labels, null_label)] * (branches - 1)])
        order = order if order.shape[0] == 1 else order.repeat(branches, 1)
        given = None if given is None else given.repeat(branches, 1)
    if isinstance(guidance, ContextGuidance):
        kept = torch.ones(len(labels), plan.given, dtype=torch.bool, device=labels.device)
        kept[-batch:] = torch.as_tensor(guidance.kept, device=labels.device)
    return Rows(labels, order, given, kept)


def combine(logits: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Guided logits [B, n, V]: the last branch and differences of neighbours by their weights [n, 1]."""
    branches = logits.chunk(1 + len(weights))
    # Exactly the upper branch at weight 1, which a sum of differences is not.
    guided = torch.lerp(branches[-1], branches[-2], weights[-1])
    for upper, lower, weight in zip(branches[:-2], branches[1:-1], weights[:-1], strict=True):
        guided = guided + weight * (upper - lower)
    return guided


@torch.inference_mode()
def decode(
    network: Network,
    strategy: Strategy,
    plan: Plan,
    labels: Tensor,
    sampler: Sampler,
    guidance: Guidance | ContextGuidance | None = None,
    known: Tensor | None = None,
    observe: Callable[[Commit], None] | None = None,
) -> Decoded:
    """Generate tokens for ``labels`` [B] by ``plan``.

    known: int64 [B, N] raster tokens, read at the plan's given places only. observe: called after each
    commit (film strips, phase times).

    Raises ValueError where guidance meets a network without a null class, FloatingPointError for logits that
    are NaN or infinite.
    """
    device, batch = labels.device, labels.shape[0]
    config = network.config
    if guidance is not None and not config.null_class:
        raise ValueError("guidance needs a network with a null class")
    order = torch.as_tensor(plan.order, device=device).reshape(-1, plan.places)  # [1 or B, N]
    scales = () if guidance is None else guidance.scales(plan)
    weights = [torch.as_tensor(scale, dtype=torch.float32, device=device)[:, None] for scale in scales]
    branches = 1 + len(weights)
    rows = make_rows(plan, labels, config.classes, branches, known, order, guidance)
    order = order.expand(batch, -1)
    noise = sampler.noise(order)  # [B, N] by place
    by_place = torch.empty(batch, plan.places, dtype=torch.int64, device=device)
    if rows.known is not None:
        by_place[:, : plan.given] = rows.known[:batch]
    trace: list[Commit] = []
    total = torch.zeros((), device=device)  # not a number once any logit is not; read once, at the end
    meter = Meter(network)
    try:
        asking = strategy.decode(network, plan, rows)
        answer: Tensor | None = None
        while True:
            try:
                ask = asking.send(answer)  # type: ignore[arg-type]
            except StopIteration:
                break
            logits = ask.logits.float()
            total += logits.sum()
            if weights:
                logits = combine(logits, [weight[ask.at] for weight in weights])
            tokens = sampler.draw(logits, noise[:, ask.at])  # [B, n]
            by_place[:, ask.at] = tokens
            trace.append(Commit(len(trace), ask.at, tokens))
            if observe is not None:
                observe(trace[-1])
            answer = tokens if branches == 1 else tokens.repeat(branches, 1)
    finally:
        meter.close()
    if not total.isfinite():
        raise FloatingPointError("the network's logits are not finite")
    tokens = torch.empty_like(by_place).scatter_(1, order, by_place)
    return Decoded(tokens, tuple(trace), meter.forwards, meter.tokens)
