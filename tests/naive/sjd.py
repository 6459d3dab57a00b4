"""A naive SJD (arXiv 2410.01699) on LlamaGen's network, from the specification alone: the published loop.

Every forward starts anew from the class and all tokens so far. Draws come from one generator, and are
recorded so that a replay can be made to draw them too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Tensors,
    Weights,
    guided,
    network_weights,
    null_labels,
    random_labels,
    raster_logits,
    recording,
    seeded,
    side_of,
    small_config,
)
from tests.naive.sjd_drafts import NONE, Drawn, certain, draw, filters_of, first_drafts, judge, law_of
from tests.replays.common import Golden


def window_length(before: int | None, sampling: dict[str, Any]) -> int:
    """before: tokens accepted at the start of the loop before this one."""
    start, end = 1 + sampling["start"], 1 + sampling["stop"]
    if before is None or not start <= before < end:
        return 1
    return min(sampling["window"], end - before)


def guided_logits(config: Config, weights: Weights, labels: Tensor, scale: float, tokens: Tensor) -> Tensor:
    with_class = raster_logits(config, weights, labels, tokens)
    if scale <= 1:
        return with_class
    return guided(with_class, raster_logits(config, weights, null_labels(config, labels), tokens), scale)


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
) -> Tensors:
    """All that a recording holds of a decode; not spatial: the published loop doesn't know the width."""
    scheme, filters = sampling["init"] if spatial else "random", filters_of(sampling)
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
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
