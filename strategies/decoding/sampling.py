"""Guidance-combined logits -> tokens: temperature, top-k, top-p, and one uniform number per draw."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from strategies.decoding.streams import Streams


class Sampler(Protocol):
    """What the decode loop asks for a token: noise per place once, then one draw per step."""

    def noise(self, order: Tensor) -> Tensor:
        """What the draws of each place consume, [B, N] by place, for an order [B, N] of raster positions."""
        ...

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Tokens int64 [B, n] from logits [B, n, V] and the noise [B, n] of these places."""
        ...


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """-inf where a filter removes a logit, [..., V].

    Top-k (only if > 0) keeps every value tied with the k-th. Top-p then sorts what is left and removes what
    follows the first token whose running probability exceeds top_p; that token stays (LlamaGen, LPD, ARPG).
    """
    if top_k > 0:
        k = min(top_k, logits.shape[-1])
        threshold = logits.topk(k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    if top_p < 1.0:
        values, index = logits.sort(dim=-1, descending=True, stable=True)
        beyond = values.softmax(dim=-1).cumsum(dim=-1) > top_p
        beyond = torch.cat([torch.zeros_like(beyond[..., :1]), beyond[..., :-1]], dim=-1)
        removed = torch.zeros_like(beyond).scatter(-1, index, beyond)
        logits = logits.masked_fill(removed, float("-inf"))
    return logits


def draw_by_inversion(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token in whose interval of the cumulative distribution ``uniform`` falls: int64 [...].

    Inverse transform instead of a multinomial call: one number per draw, so the same image meets the same
    noise whatever the batch, order or strategy; and no vocabulary is sorted.
    """
    mass = (logits - logits.amax(dim=-1, keepdim=True)).exp_().cumsum(dim=-1)  # [..., V]
    total = mass[..., -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform.unsqueeze(-1) * total, below_total)
    token = torch.searchsorted(mass, target, right=True).squeeze(-1)
    return token.clamp_(max=logits.shape[-1] - 1)  # beyond the end only where logits are not numbers


@dataclass(frozen=True)
class StreamSampler:
    """Draws from the images' own streams; ``temperature`` divides the logits before the filters."""

    streams: Streams
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    purpose: str = "token"
    """Names the stream; a second pass over the same images needs numbers of its own."""

    def noise(self, order: Tensor) -> Tensor:
        by_position = torch.from_numpy(self.streams.uniform(self.purpose, order.shape[-1])).to(order.device)
        return by_position.gather(1, order)

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        if self.temperature != 1.0:
            logits = logits / max(self.temperature, 1e-5)
        return draw_by_inversion(filter_logits(logits, self.top_k, self.top_p), noise)


@dataclass(frozen=True)
class ForcedSampler:
    """Answers with given tokens [B, N] (raster): recordings, teacher forcing."""

    tokens: Tensor

    def noise(self, order: Tensor) -> Tensor:
        return self.tokens.to(order.device).gather(1, order)

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        return noise
