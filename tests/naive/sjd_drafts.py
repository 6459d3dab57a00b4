"""The drafts of a naive SJD (arXiv 2410.01699) and their test, from the specification alone.

Tests and filters go through single numbers.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.naive.llamagen import keep_top_k
from tests.naive.parts import normal, recording, seeded
from tests.replays.common import Golden

Filters = tuple[int, float]
"""top_k and top_p."""
NONE = -1
"""No token: of an image whose drafts were all accepted."""


def filters_of(sampling: dict[str, Any]) -> Filters:
    return sampling.get("top_k", 0), sampling.get("top_p", 1.0)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Without the least likely of a row [V], while they sum to 1 - top_p at most; the largest stays."""
    if top_p >= 1:
        return logits
    kept, running, chance = logits.clone(), 0.0, logits.softmax(dim=-1)
    for token in logits.argsort(stable=True).tolist()[:-1]:
        running += float(chance[token])
        if running <= 1 - top_p:
            kept[token] = -math.inf
    return kept


def law_of(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """The distribution [..., V] that filters leave of logits [..., V]."""
    rows = [keep_top_p(keep_top_k(row, top_k), top_p) for row in logits.reshape(-1, logits.shape[-1])]
    return torch.stack(rows).softmax(dim=-1).view(logits.shape)


def draw(laws: Tensor, generator: torch.Generator) -> Tensor:
    """One token for each distribution of [..., V]."""
    drawn = torch.multinomial(laws.reshape(-1, laws.shape[-1]), 1, generator=generator)
    return drawn.view(laws.shape[:-1])


def certain(tokens: Tensor, codes: int) -> Tensor:
    """Distributions [..., V] with all probability on one token each."""
    return torch.eye(codes).double()[tokens]


class Drawn(NamedTuple):
    """Tokens [B, n] of neighbouring places and the distributions kept with them [B, n, V]."""

    tokens: Tensor
    laws: Tensor

    def to(self, stop: int) -> "Drawn":
        return Drawn(self.tokens[:, :stop], self.laws[:, :stop])

    def behind(self, start: int) -> "Drawn":
        return Drawn(self.tokens[:, start:], self.laws[:, start:])

    def and_then(self, other: "Drawn") -> "Drawn":
        return Drawn(*(torch.cat(pair, dim=1) for pair in zip(self, other, strict=True)))


class Outcome(NamedTuple):
    """A window after its test; of each image the first rejected draft [B] (L: none), its residual [B, V] and
    what was drawn from it [B]."""

    drawn: Drawn
    first_rejected: Tensor
    residual: Tensor
    resampled: Tensor


def residual_of(p: Tensor, q: Tensor, top_k: int, top_p: float) -> Tensor:
    """What a rejected draft is redrawn from, [V]: the filters apply once more."""
    rest = (p - q).clamp(min=0)
    return law_of((rest / rest.sum()).log(), top_k, top_p)


def judge(
    window: Drawn, p: Tensor, fresh: Tensor, uniform: Tensor, filters: Filters, generator: torch.Generator
) -> Outcome:
    """Tests drafts 1..L-1 of a window one by one; its entry 0 is the last accepted token.

    p [B, L, V]: targets, of which row i - 1 tests draft i; fresh [B, L]: what was drawn from them.
    """
    batch, length = window.tokens.shape
    tokens, laws, residual = fresh.clone(), p.clone(), torch.zeros_like(p[:, 0])
    first_rejected, resampled = torch.full((batch,), length), torch.full((batch,), NONE)
    for image in range(batch):
        for i in range(1, length):
            draft, q = int(window.tokens[image, i]), window.laws[image, i]
            chance = min(1.0, float(p[image, i - 1, draft]) / float(q[draft]))
            if float(uniform[image, i]) < chance:
                tokens[image, i - 1], laws[image, i - 1] = draft, q
            else:
                residual[image] = residual_of(p[image, i - 1], q, *filters)
                resampled[image] = tokens[image, i - 1] = draw(residual[image], generator)
                first_rejected[image] = i
                break
    return Outcome(Drawn(tokens, laws), first_rejected, residual, resampled)


def first_drafts(scheme: str, fill: Tensor, known: Drawn, columns: int) -> Drawn:
    """Drafts of the m places behind the n known ones; fill [B, m]: random ones, which stand in column 0."""
    drafts, places = fill.clone(), known.tokens.shape[1]
    for index in range(fill.shape[1]):
        place = places + index
        left = min(place - 1, places - 1)
        if scheme == "repeat_horizon" and place % columns > 0:
            drafts[:, index] = known.tokens[:, left]
        elif scheme == "sample_horizon" and place % columns > 0:
            drafts[:, index] = known.laws[:, left].argmax(dim=-1)
    return Drawn(drafts, certain(drafts, known.laws.shape[2]))


def single(laws: Tensor) -> Tensor:
    """In the precision in which recordings hold them."""
    return laws.float().double()


def judged(
    name: str, window: Drawn, p: Tensor, uniform: Tensor, sampling: dict[str, Any], seed: int = 0
) -> Golden:
    """One test of a window, by targets p [B, L, V]."""
    generator = seeded(seed)
    fresh = draw(p, generator)
    outcome = judge(window, p, fresh, uniform, filters_of(sampling), generator)
    io = {
        "draft_prob": window.laws,
        "draft_tokens": window.tokens,
        "target_prob": p,
        "target_tokens": fresh,
        "uniform": uniform,
        "first_rejected": outcome.first_rejected,
        "matched": outcome.first_rejected.min(),
        "residual": outcome.residual,
        "resampled": outcome.resampled,
        "out_tokens": outcome.drawn.tokens,
        "out_prob": outcome.drawn.laws,
    }
    config = {"window": p.shape[1], "vocab_size": p.shape[2]}
    return recording("sjd", "other", name, io, config, sampling)


def judged_at_random(
    name: str,
    batch: int,
    length: int,
    codes: int,
    sampling: dict[str, Any],
    certain_drafts: float = 0.3,
    seed: int = 0,
) -> Golden:
    """Targets not far from what the drafts were drawn from; of some drafts a code was certain."""
    generator, filters = seeded(seed), filters_of(sampling)
    p = single(law_of(normal(generator, batch, length, codes).double(), *filters))
    nearby = p.roll(1, dims=1).clamp(min=0.1).log() + normal(generator, batch, length, codes, scale=0.5)
    q = single(law_of(nearby, *filters))
    drafts = draw(q, generator)
    is_certain = torch.rand(batch, length, 1, generator=generator) < certain_drafts
    q = torch.where(is_certain, certain(drafts, codes), q)
    uniform = torch.rand(batch, length, generator=generator)
    return judged(name, Drawn(drafts, q), p, uniform, sampling, seed)


def judged_by_their_own_targets(name: str) -> Golden:
    """Drafts drawn from the very targets are all accepted, by however large a number."""
    generator = seeded(0)
    p = single(normal(generator, 3, 5, 12).double().softmax(dim=-1))
    q = p.roll(1, dims=1)
    return judged(name, Drawn(draw(q, generator), q), p, torch.full((3, 5), 1 - 2.0**-24), {})


def judged_at_the_edge(name: str) -> Golden:
    """Certain drafts to which the target gives 1/2, by numbers just below 1/2 (accepted) and of 1/2 itself;
    and one to which it gives 0, by the number 0."""
    p = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0]).double().expand(3, 2, -1)
    drafts = torch.tensor([[1, 0], [1, 0], [1, 4]])
    uniform = torch.tensor([[0.0, 0.5 - 2.0**-25], [0.0, 0.5], [0.0, 0.0]])
    return judged(name, Drawn(drafts, certain(drafts, 5)), p, uniform, {"top_k": 0, "top_p": 1.0})


def guessed(
    name: str, scheme: str, accepted: int, carried: int, new: int, columns: int, batch: int = 2
) -> Golden:
    """First drafts of ``new`` places behind the accepted and the carried ones."""
    generator, codes, known = seeded(0), 9, accepted + carried
    tokens = torch.randint(0, codes, (batch, known), generator=generator)
    drawn = Drawn(tokens, normal(generator, batch, known, codes).double().softmax(dim=-1))
    fill = torch.randint(0, codes, (batch, new), generator=generator)
    drafts = first_drafts(scheme, fill, drawn, columns)
    io = {
        "known_tokens": drawn.to(accepted).tokens,
        "known_prob": drawn.to(accepted).laws,
        "carried_tokens": drawn.behind(accepted).tokens,
        "carried_prob": drawn.behind(accepted).laws,
        "random_fill": fill,
        "tokens": drafts.tokens,
        "prob": drafts.laws,
    }
    config = {"grid_width": columns, "vocab_size": codes, "scheme": scheme}
    return recording("sjd", "other", name, io, config)


MAKERS: dict[str, Callable[[str], Golden]] = {
    "test-of-one-draft-top-k": partial(
        judged_at_random, batch=3, length=2, codes=30, sampling={"top_k": 5, "top_p": 1.0}
    ),
    "test-top-p-alone": partial(
        judged_at_random, batch=4, length=6, codes=30, sampling={"top_k": 0, "top_p": 0.7}, seed=6
    ),
    "test-top-p-0": partial(
        judged_at_random, batch=4, length=6, codes=30, sampling={"top_k": 10, "top_p": 0.0}, seed=9
    ),
    "test-of-a-long-window-top-k-of-all": partial(
        judged_at_random,
        batch=2,
        length=16,
        codes=20,
        sampling={"top_k": 20, "top_p": 0.95},
        certain_drafts=0.0,
        seed=13,
    ),
    "test-of-certain-drafts-alone": partial(
        judged_at_random, batch=4, length=5, codes=6, sampling={}, certain_drafts=1.0
    ),
    "test-of-drafts-of-their-own-targets": judged_by_their_own_targets,
    "test-of-numbers-at-the-ratio": judged_at_the_edge,
    "guess-random": partial(guessed, scheme="random", accepted=5, carried=2, new=6, columns=4),
    "guess-repeat-behind-one-token": partial(
        guessed, scheme="repeat_horizon", accepted=1, carried=0, new=5, columns=6
    ),
    "guess-repeat-from-column-0-over-rows": partial(
        guessed, scheme="repeat_horizon", accepted=5, carried=3, new=9, columns=4, batch=3
    ),
    "guess-sample-over-rows": partial(
        guessed, scheme="sample_horizon", accepted=3, carried=1, new=15, columns=5, batch=1
    ),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
