"""Jacobi: a draft stands where its place's own noise draws it again (after Santilli et al., 2305.10427).

One causal forward over a window of drafts gives the logits of all its places. The draw of a place is a
function of its logits and its own random number. Behind drafts that equal their draws the logits are the true
ones, so the longest run of such drafts, and the draw after it, are raster's own tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Accept, Commit, Decoding, Draft
from strategies.decoding.speculation import Guess, Sequential, Speculative, Window, until_rejection


@dataclass(frozen=True)
class Jacobi(Speculative):
    name: ClassVar[str] = "jacobi"
    title: ClassVar[str] = "Jacobi"
    paper: ClassVar[str] = "2305.10427"
    lossless: ClassVar[bool] = True
    decides_steps: ClassVar[bool] = True
    tests_drafts: ClassVar[bool] = True

    init: Guess = "random"
    """First draft of a new place."""

    def decode(self, network: Sequential, plan: Plan, rows: Rows) -> Decoding:
        window = Window(self, network, plan, rows, self.init)
        yield from window.prefill()
        while length := window.open():
            at = yield from window.lay(length)  # [B, L]
            drawn = yield Draft(window.forward(), at, noise="place")
            equal = window.drafts == drawn.tokens[:, :-1]
            final = until_rejection((yield Accept(equal.float(), window.tested)), at)
            yield Commit(at, drawn.tokens, where=final)
            window.advance(drawn.tokens, final, drawn.probs if self.init.startswith("sample") else None)
