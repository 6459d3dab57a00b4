"""SJD-GS: one Gumbel noise per place and code, so that like distributions draw alike (So et al., 2510.24211).

SJD whose draws are the largest of log p + G, where G stays the same at every forward of an image. A place
whose distribution hardly changes draws its draft again, so drafts settle. Tests and redraws have numbers of
their own: after a rejection G is known to favour what was rejected.
"""

from dataclasses import dataclass
from typing import ClassVar

from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Commit, Decoding, Draft
from strategies.decoding.speculation import Guess, Sequential, Speculative, Window, of_tokens, until_redrawn


@dataclass(frozen=True)
class SJDGS(Speculative):
    name: ClassVar[str] = "sjd-gs"
    title: ClassVar[str] = "SJD-GS"
    paper: ClassVar[str] = "2510.24211"
    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True
    lossless: ClassVar[bool] = True

    window: int = 32
    init: Guess = "random"
    """First draft of a new place."""

    def decode(self, network: Sequential, plan: Plan, rows: Rows) -> Decoding:
        window = Window(self, network, plan, rows, self.init)
        yield from window.prefill()
        while length := window.open():
            at = yield from window.lay(length)  # [B, L]
            drawn = yield Draft(window.forward(), at, noise="gumbel")
            p, q, drafts = drawn.probs, window.draft_laws(), window.drafts  # [B, L, V], [B, L - 1, V]
            accepted = yield Accept(of_tokens(p[:, :-1], drafts) / of_tokens(q, drafts), window.tested)
            tokens, final = yield from until_redrawn(at, drafts, accepted, q, p, drawn.tokens)
            yield Commit(at, tokens, where=final)
            window.advance(tokens, final, p)
