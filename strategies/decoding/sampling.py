"""Guidance-combined logits -> tokens: temperature, top-k, top-p, and one uniform number per draw."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from backbones.uploading import upload
from strategies.decoding.streams import Streams


class Sampler(Protocol):
    """What the loop asks for a token. Forced tokens, recordings and listeners are samplers too."""

    @property
    def top_k(self) -> int: ...

    @property
    def top_p(self) -> float: ...

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        """What the draws of each place consume at a visit, [B, N] by place, for an order [B, N]."""
        ...

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens int64 [B, n] from logits [B, n, V] and noise [B, n], and what tells their soundness:
        float32 [B, n], not finite where a logit is NaN or positive infinity; a negative one has no chance.
        """
        ...

    def warmed(self, logits: Tensor) -> Tensor:
        """Logits after temperature, before filters."""
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution that ``draw`` draws from, float32 [B, n, V]."""
        ...

    def draw_from(self, probs: Tensor, noise: Tensor) -> Tensor:
        """Tokens int64 [B, n] from weights [B, n, V], by noise [B, n]."""
        ...

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        """Tokens int64 [B, n] from weights [B, n, V], by the positions' own numbers of each code; -1 is no
        position."""
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


def draw_by_inversion(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The token in whose interval of the cumulative weights ``uniform`` falls: int64 [...]; their sum [...].

    Inverse transform instead of a multinomial call: one number per draw, so the same image meets the same
    noise whatever the batch, order or strategy; and no vocabulary is sorted. weights [..., V] is overwritten.
    """
    mass = weights.cumsum_(dim=-1)  # [..., V]
    total = mass[..., -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform.unsqueeze(-1) * total, below_total)
    token = torch.searchsorted(mass, target, right=True).squeeze(-1)
    # Beyond the end only where the sum is 0 or no number.
    return token.clamp_(max=weights.shape[-1] - 1), total.squeeze(-1)


@dataclass(frozen=True)
class StreamSampler:
    """Draws from the images' own streams; ``temperature`` divides the logits before the filters."""

    streams: Streams
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stream: str = ""
    """Names the streams; a second pass over the same images needs numbers of its own."""

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        name = f"{purpose} at {self.stream}" if self.stream else purpose
        numbers = upload(self.streams.uniform(name, order.shape[-1], visit), order.device)
        return numbers.gather(1, order)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.filtered(logits)
        return draw_by_inversion((logits - logits.amax(dim=-1, keepdim=True)).exp_(), noise)

    def probabilities(self, logits: Tensor) -> Tensor:
        return self.filtered(logits).softmax(dim=-1)

    def draw_from(self, probs: Tensor, noise: Tensor) -> Tensor:
        return draw_by_inversion(probs.clone(), noise)[0]

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        """The largest of log p + G, G = -log E of exponential numbers E: also that of p / E.

        Numbers are made for each image's span of positions; a window is one.
        """
        there = positions >= 0
        first = torch.where(there, positions, positions.amax()).amin(dim=1).clamp(min=0)  # [B]
        offsets = (positions - first[:, None]).clamp(min=0)
        name = f"gumbel at {self.stream}" if self.stream else "gumbel"
        ends = torch.stack((first, offsets.amax(dim=1))).cpu().numpy()  # the one time that it waits
        uniform = self.streams.of_codes(name, probs.shape[-1], ends[0], int(ends[1].max()) + 1)
        numbers = upload(uniform, probs.device)  # [B, span, V]
        # Off both ends, where a single number would decide whatever p is.
        exponential = -torch.log1p(-(numbers + 2.0**-25).clamp(max=1 - 2.0**-24))
        rows = torch.arange(len(offsets), device=probs.device)[:, None]
        return (probs / exponential[rows, offsets]).argmax(dim=-1)

    def warmed(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1.0 else logits / max(self.temperature, 1e-5)

    def filtered(self, logits: Tensor) -> Tensor:
        """Logits after temperature, top-k, top-p; -inf where a filter removes one."""
        return filter_logits(self.warmed(logits), self.top_k, self.top_p)


@dataclass(frozen=True)
class DeclaredAcceptance(StreamSampler):
    """Every draft is accepted with one probability, whatever it is: for weights that tell nothing of it."""

    acceptance: float = 1.0

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        numbers = super().noise(order, purpose, visit)
        # -1 passes every test, 1 fails all.
        return torch.where(numbers < self.acceptance, -1.0, 1.0) if purpose == "accept" else numbers


@dataclass(frozen=True)
class ForcedSampler:
    """Answers with given tokens [B, N] (by position): recordings, teacher forcing.

    Drafts are never accepted: their acceptance tests meet the number 1, and the redraw is the given token.
    Other numbers rise with the position.
    """

    tokens: Tensor
    top_k: int = 0
    top_p: float = 1.0

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        if purpose in ("token", "redraw"):
            return self.tokens.to(order.device).gather(1, order)
        if purpose == "accept":
            return torch.ones(order.shape, device=order.device)
        return (order + 0.5) / order.shape[-1]

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return noise, logits.sum(dim=-1)

    def warmed(self, logits: Tensor) -> Tensor:
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)

    def draw_from(self, probs: Tensor, noise: Tensor) -> Tensor:
        return noise

    def race(self, probs: Tensor, positions: Tensor) -> Tensor:
        return self.tokens.to(positions.device).gather(1, positions.clamp(min=0))
