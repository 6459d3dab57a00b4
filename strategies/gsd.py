"""GSD: a draft is tested together with the codes that are like it (So et al., 2508.07747).

SJD with grouped acceptance. Tokens of an image are often exchangeable, so a draft need not be likely itself:
it is kept with the probability of its group under p over that under q. Its group are the codes next to it in
the ranking of p, of nearly its probability, whose vectors lie close to its own. Lossy.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Commit, Decoding, Draft
from strategies.decoding.speculation import (
    Guess,
    Sequential,
    Speculative,
    Window,
    of_tokens,
    until_redrawn,
)


@dataclass(frozen=True)
class GSD(Speculative):
    name: ClassVar[str] = "gsd"
    title: ClassVar[str] = "GSD"
    paper: ClassVar[str] = "2508.07747"
    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True
    reads_code_vectors: ClassVar[bool] = True

    init: Guess = "random"
    """First draft of a new place."""
    group: int = 14
    """Most codes of a group: half of them rank below the draft, which is the first of the other half."""
    alike: float = 0.15
    """Probabilities of a group differ by less from the draft's."""
    near: float = 0.5
    """Squared distances of a group's vectors to the draft's are below; it suits unit vectors."""

    def bounded(self, grid: tuple[int, int]) -> Plan:
        if self.group < 2 or self.group % 2:
            raise UserError(f"group = {self.group}: expected an even number, at least 2")
        for name in ("alike", "near"):
            if not getattr(self, name) > 0:  # a draft is alike and near to itself
                raise UserError(f"{name} = {getattr(self, name)}: expected a number above 0")
        return super().bounded(grid)

    def decode(self, network: Sequential, plan: Plan, rows: Rows) -> Decoding:
        vectors = network.code_vectors
        if vectors is None:
            raise UserError(
                "strategy 'gsd' compares the vectors of codes, and no tokenizer gave its network any"
            )
        window = Window(self, network, plan, rows, self.init)
        yield from window.prefill()
        while length := window.open():
            at = yield from window.lay(length)  # [B, L]
            drawn = yield Draft(window.forward(), at)
            p, q, drafts = drawn.probs, window.draft_laws(), window.drafts  # [B, L, V], [B, L - 1, V]
            accepted = yield Accept(self.chance(p[:, :-1], q, drafts, vectors), window.tested)
            tokens, final = yield from until_redrawn(at, drafts, accepted, q, p, drawn.tokens)
            yield Commit(at, tokens, where=final)
            window.advance(tokens, final, p)

    def chance(self, p: Tensor, q: Tensor, drafts: Tensor, vectors: Tensor) -> Tensor:
        """[B, n] of p and q [B, n, V], drafts [B, n] and the vectors [V, c] of all codes."""
        half, codes = self.group // 2, p.shape[2]
        ranked = p.argsort(dim=2, stable=True)  # ascending
        rank = (ranked == drafts.unsqueeze(2)).int().argmax(dim=2, keepdim=True)
        ranks = rank + torch.arange(-half, half, device=p.device)  # [B, n, group]
        members = ranked.gather(2, ranks.clamp(0, codes - 1))
        p_group, q_group = p.gather(2, members), q.gather(2, members)
        p_draft, q_draft = of_tokens(p, drafts), of_tokens(q, drafts)
        distance = (vectors[members] - vectors[drafts].unsqueeze(2)).square().sum(dim=3)
        like = ((p_group - p_draft.unsqueeze(2)).abs() < self.alike) & (distance < self.near)
        like &= (ranks >= 0) & (ranks < codes)
        grouped = (p_group * like).sum(dim=2) / (q_group * like).sum(dim=2)
        # As published: too far down the ranking for half a group below, a draft is tested alone.
        return torch.where(rank.squeeze(2) < half, p_draft / q_draft, grouped)
