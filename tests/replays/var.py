"""Replays recordings of VAR: decodes with the sums of features, losses, its quantiser and its tokenizer."""

from dataclasses import replace
from importlib import import_module

import torch
from torch import Tensor

from backbones.checkpoints import load_published
from backbones.tokenizers.multiscale import MultiScaleQuantiser, lend
from backbones.tokenizers.vq_var import load_quantiser
from strategies.decoding.decode import decode
from strategies.decoding.registry import by_family
from strategies.var import VAR, Sums, VARNetwork
from tests.replays.common import Golden, RecordingSampler, difference, replay_tokenizer, with_dropped


def part(golden: Golden, prefix: str) -> dict[str, Tensor]:
    weights = golden.weights
    return {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}


def quantiser_of(golden: Golden) -> MultiScaleQuantiser:
    """The quantiser alone, by the tokenizer's keys."""
    names = {**by_family("var").defaults, **golden.config}
    return load_quantiser(names, part(golden, "vae_local."), golden.path.name)


def network_of(golden: Golden, prefix: str, **names: int) -> tuple[VAR, VARNetwork]:
    published = by_family("var")
    strategy, config = published.configure({**published.defaults, **golden.config, **names})
    network = strategy.network(config).eval()
    load_published(network, part(golden, prefix), published.keys, golden.path.name)
    lend(network.quantiser, quantiser_of(golden))
    return strategy, network


def replay(golden: Golden, strategy, network) -> tuple[float, list[Tensor]]:
    """The largest difference of logits, and the sums' features after the last step."""
    made: list[Sums] = []

    class Kept(Sums):
        def __init__(self, fed: list[Tensor] | None = None) -> None:
            super().__init__(fed)
            made.append(self)

    module = import_module(type(strategy).__module__)
    before, module.Sums = module.Sums, Kept
    tokens = golden.io["tokens"]
    sampler = RecordingSampler(tokens)
    try:
        plan = strategy.plan(network.config.grid, None, None)
        guidance = by_family("var").setting(golden.sampling).guidance
        decoded = decode(network, strategy, plan, golden.io["labels"], sampler, guidance)
    finally:
        module.Sums = before
    expected = golden.per_step("step_logits")
    assert decoded.steps == decoded.forwards == len(expected)
    assert torch.equal(decoded.tokens, tokens)
    assert torch.equal(decoded.order[0], golden.io["order"])
    for commit, positions in zip(decoded.trace, golden.per_step("step_positions"), strict=True):
        assert torch.equal(decoded.order[0, commit.places], positions)
    worst = max(difference(*pair) for pair in zip(sampler.seen, expected, strict=True))
    return worst, made[0].fed


def replay_decode(golden: Golden) -> float:
    worst, fed = replay(golden, *network_of(golden, "var_wo_ddp."))
    inputs = golden.per_step("next_input")
    worst = max(worst, *(difference(*pair) for pair in zip(fed, inputs, strict=True)))
    total = quantiser_of(golden).decode(golden.io["tokens"])
    return max(worst, difference(total, golden.io["f_hat"]))


def replay_loss(golden: Golden) -> float:
    strategy, network = network_of(golden, "var_wo_ddp.")
    tokens = golden.io["tokens"]
    labels = with_dropped(golden, golden.io["labels"], network.config.classes)
    lesson = strategy.lesson(len(labels), network.config.grid, torch.Generator(), 1.0)
    with torch.no_grad():
        logits = strategy.taught_logits(network, tokens, labels, lesson)
        loss = strategy.loss(network, tokens, labels, lesson)
        fed = network.quantiser.inputs(tokens)
    found = ((logits, "logits"), (loss, "loss"), (fed, "teacher_input"))
    return max(difference(one, golden.io[name]) for one, name in found)


def replay_quantiser(golden: Golden) -> float:
    quantiser, io = quantiser_of(golden), golden.io
    steps = list(quantiser.steps(io["f"]))
    codes = torch.cat([codes.flatten(1) for _, codes, _, _ in steps], dim=1)
    assert torch.equal(codes, io["codes"])
    return max(difference(step[3], one) for step, one in zip(steps, golden.per_step("f_hat"), strict=True))


def replay_own_tokenizer(golden: Golden) -> float:
    bare = replace(golden, family="vq-var", weights=part(golden, "vae_local."))
    return max(
        replay_tokenizer(bare),
        difference(quantiser_of(golden).decode(golden.io["codes"]), golden.io["f_hat"]),
    )


REPLAYS = {
    "decode": replay_decode,
    "loss": replay_loss,
    "other": replay_quantiser,
    "tokenizer": replay_own_tokenizer,
}
