"""A naive SJD (arXiv 2410.01699) on LlamaGen's network, from the specification alone: the published loop.

Every forward starts anew from the class and all tokens so far; tests and filters go through single numbers.
Draws come from one generator, and are recorded so that a replay can be made to draw them too.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Weights,
    causal_mask,
    embed_class,
    embed_tokens,
    forward,
    grid_phases,
    guided,
    network_weights,
    normal,
    null_labels,
    random_labels,
    recording,
    seeded,
    side_of,
    small_config,
)
from tests.replays.common import Golden

Filters = tuple[int, float]
"""top_k and top_p."""
NONE = -1
"""No token: of an image whose drafts were all accepted."""


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Without the values of a row [V] that are below the k-th largest."""
    if top_k <= 0:
        return logits
    smallest = sorted(logits.tolist())[-min(top_k, len(logits))]
    return logits.masked_fill(logits < smallest, -math.inf)


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


def window_length(before: int | None, sampling: dict[str, Any]) -> int:
    """before: tokens accepted at the start of the loop before this one."""
    start, end = 1 + sampling["start"], 1 + sampling["stop"]
    if before is None or not start <= before < end:
        return 1
    return min(sampling["window"], end - before)


def logits_behind(config: Config, weights: Weights, labels: Tensor, tokens: Tensor) -> Tensor:
    """Logits [B, n + 1, V] behind the class and behind each of the tokens [B, n]."""
    x = torch.cat([embed_class(weights, labels), embed_tokens(weights, tokens)], dim=1)
    phases = grid_phases(config, torch.arange(-1, tokens.shape[1]))
    return forward(config, weights, x, phases, causal_mask(x.shape[1]))


def guided_logits(config: Config, weights: Weights, labels: Tensor, scale: float, tokens: Tensor) -> Tensor:
    with_class = logits_behind(config, weights, labels, tokens)
    if scale <= 1:
        return with_class
    return guided(with_class, logits_behind(config, weights, null_labels(config, labels), tokens), scale)


def lay_window(
    accepted: Drawn, carried: Drawn, length: int, scheme: str, columns: int, generator: torch.Generator
) -> tuple[Drawn, Tensor]:
    """A window of the last accepted token and drafts; and the random drafts that were made for it, [B, m]."""
    drafts = carried.to(length - 1)
    missing = length - 1 - drafts.tokens.shape[1]
    codes = accepted.laws.shape[2]
    fill = torch.randint(0, codes, (len(accepted.tokens), missing), generator=generator)
    drafts = drafts.and_then(first_drafts(scheme, fill, accepted.and_then(drafts), columns))
    return accepted.behind(accepted.tokens.shape[1] - 1).and_then(drafts), fill


def decode(
    config: Config,
    sampling: dict[str, Any],
    weights: Weights,
    labels: Tensor,
    generator: torch.Generator,
    spatial: bool,
    largest_uniform: float,
) -> dict[str, Tensor]:
    """All that a recording holds of a decode; not spatial: the published loop doesn't know the width."""
    scheme, filters = sampling["init"] if spatial else "random", (sampling["top_k"], sampling["top_p"])
    logits_of = partial(guided_logits, config, weights, labels, sampling["cfg_scale"])
    logits = logits_of(torch.zeros(len(labels), 0).long())  # [B, 1, V]
    first = draw(law_of(logits / sampling["temperature"], *filters), generator)  # [B, 1]
    io = {"labels": labels, "prefill_logits": logits[:, 0], "prefill_token": first}
    accepted, before, loop = Drawn(first, certain(first, config["vocab_size"])), None, 0
    carried = accepted.to(0)
    while (known := accepted.tokens.shape[1]) < config["block_size"]:
        length = min(window_length(before, sampling), config["block_size"] - known)
        window, fill = lay_window(accepted, carried, length, scheme, side_of(config), generator)
        fed = accepted.to(known - 1).and_then(window).tokens
        logits = logits_of(fed)[:, known:]  # [B, L, V]
        p = law_of(logits, *filters)
        fresh = draw(p, generator)
        uniform = largest_uniform * torch.rand(len(labels), length, generator=generator)
        outcome = judge(window, p, fresh, uniform, filters, generator)
        advance = int(outcome.first_rejected.min())
        seen = {
            "window_tokens": window.tokens,
            "draft_prob": window.laws,
            "window_positions": torch.arange(known, known + length),
            "step_logits": logits,
            "step_probs": p,
            "sampled": fresh,
            "accepted": torch.tensor(advance),
            "new_tokens": outcome.drawn.to(advance).tokens,
        }
        if fill.numel() > 0:
            seen["random_fill"] = fill
        if length > 1:
            seen["uniform"] = uniform
        if (outcome.resampled != NONE).any():
            seen |= {"resampled": outcome.resampled, "residual": outcome.residual}
        io |= {f"{name}.{loop}": value for name, value in seen.items()}
        before, carried = known, outcome.drawn.behind(advance)
        accepted = accepted.and_then(outcome.drawn.to(advance))
        loop += 1
    return {**io, "tokens": accepted.tokens, "steps": torch.tensor(loop + 1)}


def settings_of(config: Config, window: int, **changes: Any) -> dict[str, Any]:
    """The published loop's settings: windows between the second place and the last window + 2."""
    return {
        "window": window,
        "start": 1,
        "stop": config["block_size"] - window - 2,
        "cfg_scale": 1.75,
        "top_k": 0,
        "top_p": 1.0,
        "temperature": 1.0,
        "init": "random",
        **changes,
    }


def decoded(
    name: str,
    config: Config,
    window: int,
    batch: int = 1,
    seed: int = 0,
    spatial: bool = True,
    largest_uniform: float = 1.0,
    **changes: Any,
) -> Golden:
    generator, sampling = seeded(seed), settings_of(config, window, **changes)
    weights = network_weights(config, generator)
    labels = random_labels(config, batch, generator)
    io = decode(config, sampling, weights, labels, generator, spatial, largest_uniform)
    return recording("sjd", "other", name, io, config, sampling, weights)


def single(laws: Tensor) -> Tensor:
    """In the precision in which recordings hold them."""
    return laws.float().double()


def judged(
    name: str, window: Drawn, p: Tensor, uniform: Tensor, sampling: dict[str, Any], seed: int = 0
) -> Golden:
    """One test of a window, by targets p [B, L, V]."""
    generator = seeded(seed)
    fresh = draw(p, generator)
    filters = (sampling.get("top_k", 0), sampling.get("top_p", 1.0))
    outcome = judge(window, p, fresh, uniform, filters, generator)
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
    generator = seeded(seed)
    filters = (sampling.get("top_k", 0), sampling.get("top_p", 1.0))
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


TINY = small_config(4, n_layer=1, n_head=2, multiple_of=16, vocab_size=8)
"""Few codes, so that drafts are often accepted."""

MAKERS: dict[str, Callable[[str], Golden]] = {
    "three-images-at-the-slowest-pace": partial(
        decoded, config={**TINY, "block_size": 25}, window=5, batch=3, seed=2, cfg_scale=2.5
    ),
    "odd-grid-3-heads-window-past-the-stop": partial(
        decoded,
        config=small_config(5, dim=36, n_head=3, n_layer=1, vocab_size=20),
        window=14,
        seed=11,
        cfg_scale=1.25,
        top_k=15,
    ),
    "scale-half-no-null-class-grouped-heads": partial(
        decoded,
        config=small_config(4, n_kv_head=2, class_dropout_prob=0.0, rope_base=100, norm_eps=1e-2),
        window=4,
        cfg_scale=0.5,
    ),
    "temperature-and-interval-stay-out-of-the-loop": partial(
        decoded, config=TINY, window=4, temperature=0.5, cfg_interval=2
    ),
    "top-p-alone": partial(decoded, config=TINY, window=4, batch=2, seed=11, top_p=0.8),
    "top-k-and-top-p": partial(decoded, config=TINY, window=4, batch=2, seed=6, top_k=6, top_p=0.9),
    "top-k-past-the-end": partial(decoded, config=TINY, window=4, top_k=99),
    "top-k-1-by-numbers-of-0": partial(
        decoded, config=TINY, window=4, batch=2, seed=11, top_k=1, largest_uniform=0.0
    ),
    "top-p-0-is-greedy": partial(decoded, config=TINY, window=4, seed=1, top_p=0.0),
    "windows-of-one": partial(decoded, config={**TINY, "block_size": 9}, window=1),
    "windows-of-two": partial(decoded, config=TINY, window=2, batch=2),
    "no-room-for-a-window": partial(decoded, config={**TINY, "block_size": 9}, window=7),
    "windows-from-the-start-on": partial(decoded, config=TINY, window=4, batch=2, start=0),
    "late-start-early-stop": partial(decoded, config=TINY, window=6, seed=2, start=3, stop=9),
    "windows-to-the-end": partial(decoded, config=TINY, window=5, batch=2, seed=1, start=0, stop=16),
    "repeat-horizon": partial(
        decoded, config={**TINY, "block_size": 25}, window=6, seed=3, init="repeat_horizon"
    ),
    "repeat-horizon-of-unknown-width": partial(
        decoded, config=TINY, window=4, init="repeat_horizon", spatial=False
    ),
    "sample-horizon": partial(
        decoded, config={**TINY, "block_size": 25}, window=6, batch=2, init="sample_horizon"
    ),
    "no-draft-rejected": partial(
        decoded, config={**TINY, "block_size": 9, "vocab_size": 2}, window=2, cfg_scale=1.0
    ),
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
