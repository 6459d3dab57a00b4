"""SJD-MC: drafts behind a rejection are kept or redrawn too, so that they settle (So et al., 2510.24211).

SJD with coupled drafts: the test does not stop at the first rejection. Every draft of the window is kept with
probability min(1, p / q), or redrawn from the residual, so it changes as seldom as it can while it becomes
distributed as p; the next forward tests it as drawn from p.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Commit, Decoding, Draft, Redraw
from strategies.decoding.speculation import (
    Guess,
    Sequential,
    Speculative,
    Window,
    of_tokens,
    residual,
    until_rejection,
)


@dataclass(frozen=True)
class SJDMC(Speculative):
    name: ClassVar[str] = "sjd-mc"
    title: ClassVar[str] = "SJD-MC"
    paper: ClassVar[str] = "2510.24211"
    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True

    window: int = 32
    init: Guess = "random"
    """First draft of a new place."""
    kept: Literal["renewed", "stale"] = "renewed"
    """Distribution carried with a draft that passed. renewed: p, by which the test has made it distributed.
    stale: the old q, as the published code has it, which is not lossless."""

    @property
    def lossless(self) -> bool:  # type: ignore[override]
        return self.kept == "renewed"

    def decode(self, network: Sequential, plan: Plan, rows: Rows) -> Decoding:
        window = Window(self, network, plan, rows, self.init)
        yield from window.prefill()
        while length := window.open():
            at = yield from window.lay(length)  # [B, L]
            drawn = yield Draft(window.forward(), at)
            p, q, drafts = drawn.probs, window.draft_laws(), window.drafts  # [B, L, V], [B, L - 1, V]
            chance = of_tokens(p[:, :-1], drafts) / of_tokens(q, drafts)
            accepted = yield Accept(chance, window.tested, stops=False)
            rejected = torch.where(accepted, -1, window.tested)
            redrawn = yield Redraw(residual(p[:, :-1], q), rejected)
            # The very last place of an image has no draft.
            settled = torch.where(accepted, drafts, redrawn)
            settled = torch.where(window.tested < 0, drawn.tokens[:, :-1], settled)
            tokens = torch.cat([settled, drawn.tokens[:, -1:]], dim=1)
            final = until_rejection(accepted, at)
            yield Commit(at, tokens, where=final)
            laws = p
            if self.kept == "stale":
                laws = torch.cat([torch.where(accepted.unsqueeze(2), q, p[:, :-1]), p[:, -1:]], dim=1)
            window.advance(tokens, final, laws)
