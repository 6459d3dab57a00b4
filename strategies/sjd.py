"""SJD: the last forward's draws are drafts, kept by the speculative test (Teng et al., 2410.01699).

One causal forward over a window of drafts gives the target distribution p of all its places. Drafts are
tested from left to right against the distribution q that they were drawn from; the first rejected one is
drawn anew from the residual, and the places behind it take fresh draws from p as their next drafts.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Commit, Decoding, Draft, Request
from strategies.decoding.sampling import Sampler
from strategies.decoding.speculation import (
    Guess,
    Sequential,
    Speculative,
    Window,
    of_tokens,
    until_redrawn,
)

Judged = tuple[Tensor, Tensor, Tensor]
"""Tokens [B, L], which of them are final, bool [B, L], and distributions kept with them [B, L, V]."""


@dataclass(frozen=True)
class SJD(Speculative):
    name: ClassVar[str] = "sjd"
    title: ClassVar[str] = "SJD"
    paper: ClassVar[str] = "2410.01699"
    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True

    init: Guess = "random"
    """First draft of a new place."""
    loop: Literal["own", "published"] = "own"
    """own: raster's sampler; every image at its own pace. published: one token a forward at both ends;
    all images at the pace of the slowest, an accepted draft keeping its old q; one guidance scale, the last
    of a schedule, filters without temperature, and the residual filtered again."""
    start: int = 1
    """Tokens after the first from which the published loop opens windows."""
    stop: int = -1
    """Tokens after the first from which it opens none; -1: all places but window + 2."""

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        return self.loop == "own"

    @property
    def batch_exact(self) -> bool:  # type: ignore[override]
        return self.loop == "own"

    def bounded(self, grid: tuple[int, int]) -> Plan:
        if self.loop == "published" and self.read_every > 1:
            raise UserError(f"read_every = {self.read_every}: the published loop asks at every step")
        if self.loop == "own" and (self.start, self.stop) != (1, -1):
            raise UserError(
                f"start = {self.start}, stop = {self.stop}: bounds of the published loop alone; "
                "expected loop = 'published' beside them"
            )
        if self.start < 0 or self.stop < -1:
            raise UserError(f"start = {self.start}, stop = {self.stop}: expected counts of tokens")
        return super().bounded(grid)

    def decode(self, network: Sequential, plan: Plan, rows: Rows) -> Decoding:
        window = Window(self, network, plan, rows, self.init)
        yield from window.prefill()
        before = 0
        while length := window.open():
            if self.loop == "published":
                length, before = self.published_length(length, plan.places, before), window.least
            at = yield from window.lay(length)  # [B, L]
            if self.loop == "published":
                drawn = yield Draft(window.forward(), at, clock=1.0, law=published_law)
            else:
                drawn = yield Draft(window.forward(), at)
            p, q = drawn.probs, window.draft_laws()  # [B, L, V], [B, L - 1, V]
            tokens, final, laws = yield from self.judge(at, window.drafts, q, p, drawn.tokens, drawn.sampler)
            yield Commit(at, tokens, where=final)
            window.advance(tokens, final, laws)

    def judge(
        self, at: Tensor, drafts: Tensor, q: Tensor, p: Tensor, fresh: Tensor, sampler: Sampler
    ) -> Generator[Request, Any, Judged]:
        """Test drafts [B, L - 1] for the places ``at`` [B, L]; fresh: what was drawn from p there, [B, L]."""
        if at.shape[1] == 1:
            return fresh, at >= 0, p
        tested = torch.where(at[:, 1:] < 0, -1, at[:, :-1])
        accepted = yield Accept(of_tokens(p[:, :-1], drafts) / of_tokens(q, drafts), tested)
        rest = self.filtered_again(sampler) if self.loop == "published" else None
        tokens, final = yield from until_redrawn(at, drafts, accepted, q, p, fresh, rest)
        if self.loop == "own":
            return tokens, final, p
        laws = p.clone()
        laws[:, :-1] = torch.where(final[:, 1:].unsqueeze(2), q, p[:, :-1])
        return tokens, final & final.all(dim=0), laws

    def filtered_again(self, sampler: Sampler) -> Callable[[Tensor], Tensor]:
        return lambda rest: published_law((rest / rest.sum(dim=-1, keepdim=True)).log(), sampler)

    def published_length(self, longest: int, places: int, before: int) -> int:
        """Of the window, between ``start`` and ``stop``; else of one token. before: tokens accepted before
        the last forward."""
        start, stop = 1 + self.start, 1 + (self.stop if self.stop >= 0 else places - self.window - 2)
        return min(longest, stop - before) if start <= before < stop else 1


def published_law(logits: Tensor, sampler: Sampler) -> Tensor:
    """Top-k, ties kept; then, from the least likely on, what sums to at most 1 - top_p is left out."""
    if sampler.top_k > 0:
        least = logits.topk(min(sampler.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampler.top_p < 1.0:
        values, index = logits.sort(dim=-1, stable=True)
        left_out = values.softmax(dim=-1).cumsum(dim=-1) <= 1 - sampler.top_p
        left_out[..., -1] = False
        logits = logits.masked_fill(torch.zeros_like(left_out).scatter(-1, index, left_out), float("-inf"))
    return logits.softmax(dim=-1)
