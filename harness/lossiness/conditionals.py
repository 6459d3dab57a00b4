"""Log-probabilities of whole images: as the loop decodes them, and one token at a time."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from backbones.networks import Networks
from backbones.transformer import Network
from strategies.decoding import registry
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import Sampler
from strategies.decoding.streams import Streams

OWN_LAW = (
    "tokens are drawn from distributions of the method's own, so what differs from one at a time is more "
    "than the grouping"
)


class Undefined(ValueError):
    """There is no one-at-a-time distribution to compare with; the text says why."""


@dataclass
class Witness:
    """A sampler that keeps the log-probability, in nats, of every token it answers with; Undefined where a
    strategy draws from another distribution than that of the logits.

    temperature: what the wrapped sampler divides logits by; filters have no place here, for they give tokens
    the probability 0.
    """

    sampler: Sampler
    temperature: float = 1.0
    seen: list[Tensor] = field(default_factory=list)
    """float64 [B, n] of every draw."""
    top_k: ClassVar[int] = 0
    top_p: ClassVar[float] = 1.0

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        return self.sampler.noise(order, purpose, visit)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        tokens, soundness = self.sampler.draw(logits, noise)
        self.seen.append(log_probabilities(logits, tokens, self.temperature))
        return tokens, soundness

    def warmed(self, logits: Tensor) -> Tensor:
        return self.sampler.warmed(logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        return self.sampler.probabilities(logits)

    def draw_from(self, probs: Tensor, noise: Tensor) -> Tensor:
        raise Undefined(OWN_LAW)

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        raise Undefined(OWN_LAW)


def log_probabilities(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) of ``tokens`` [B, n], in nats: float64 [B, n]."""
    scaled = logits.double() / temperature
    return scaled.log_softmax(dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def decoded_log_probabilities(
    network: Network | Networks,
    strategy: Strategy,
    plan: Plan,
    labels: Tensor,
    sampler: Sampler,
    guidance: Guidance | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, N] (raster) that the loop decodes, and their log-probabilities [B, N] by place.

    Raises Undefined for a strategy that overwrites what it committed: its draws are no factors of a joint.
    """
    if strategy.revises:
        raise Undefined(f"strategy '{strategy.name}' overwrites tokens, so its draws are no conditionals")
    if plan.opened:
        raise Undefined(f"strategy '{strategy.name}' decides while decoding, so its draws are no factors")
    witness = Witness(sampler, temperature)
    found = decode(network, strategy, plan, labels, witness, guidance)
    by_place = torch.full((len(labels), plan.places), float("nan"), dtype=torch.float64, device=labels.device)
    for commit, seen in zip(found.trace, witness.seen, strict=True):
        by_place[:, commit.places] = seen
    if by_place.isnan().any():
        raise Undefined(f"strategy '{strategy.name}' left places without a draw")
    return found.tokens, by_place


@torch.inference_mode()
def sequential_log_probabilities(
    network: Network | Networks,
    strategy: Strategy,
    plan: Plan,
    labels: Tensor,
    tokens: Tensor,
    guidance: Guidance | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probabilities [B, N], by the plan's places, of tokens [B, N] (raster) decoded one at a time.

    One teacher-forced pass with groups of one, in the plan's order, or in the network's own where it has a
    fixed one. Guidance keeps each place's scale of ``plan``, so that only the grouping differs.

    Raises Undefined for networks that have no such conditionals.
    """
    owner = registry.owner(strategy)
    if not owner.sequential_conditionals:
        raise Undefined(
            f"the network of '{owner.name}' predicts whole groups and cannot decode them one token at a time"
        )
    batch, places = tokens.shape
    own_order = plan.order
    if not owner.any_order:
        nothing = np.zeros(0, dtype=np.int64)
        own_order = owner.orders(plan.grid, (1,) * places, Streams(0, tuple(range(batch))), nothing)
    order = _rows(own_order, batch, tokens.device)
    plan_order = _rows(plan.order, batch, tokens.device)
    lesson = Lesson(order, (1,) * places)
    logits = owner.taught_logits(network, tokens, labels, lesson).float()  # [B, N, V]
    if guidance is not None:
        nobody = torch.full_like(labels, network.config.classes)
        unconditional = owner.taught_logits(network, tokens, nobody, lesson).float()
        scale = torch.as_tensor(guidance.weights(plan), dtype=torch.float32, device=tokens.device)
        by_position = torch.empty_like(plan_order, dtype=torch.float32)
        by_position.scatter_(1, plan_order, scale.expand(batch, -1))
        logits = torch.lerp(unconditional, logits, by_position.gather(1, order).unsqueeze(-1))
    found = log_probabilities(logits, tokens.gather(1, order), temperature)
    return torch.empty_like(found).scatter_(1, order, found).gather(1, plan_order)


def _rows(order: np.ndarray, batch: int, device: torch.device) -> Tensor:
    """An order [N] or [B, N] as int64 [B, N]."""
    return torch.as_tensor(np.atleast_2d(order), device=device).expand(batch, -1)
