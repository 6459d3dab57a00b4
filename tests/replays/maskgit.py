"""Replays recordings of MaskGIT by confidence and in Halton order: decodes, lessons, orders, schedules."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from strategies.decoding.base import Lesson
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.mask_schedules import halton_sizes, maskgit_sizes
from strategies.decoding.orders import halton
from strategies.decoding.plan import Plan
from strategies.decoding.registry import by_family
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.halton import Halton
from strategies.maskgit import MaskGIT
from tests.replays.common import Golden, build, difference, with_dropped


class Forced(ForcedSampler):
    """The tokens [S, B, N] and the Gumbel noise [S, B, N] that were recorded at each step; sharpness: what
    logits are multiplied by before probabilities."""

    def __init__(self, tokens: Tensor, gumbel: Tensor | None, sharpness: float = 1.0) -> None:
        super().__init__(tokens)
        object.__setattr__(self, "gumbel", gumbel)
        object.__setattr__(self, "sharpness", sharpness)
        object.__setattr__(self, "seen", [])

    def warmed(self, logits: Tensor) -> Tensor:
        return logits * self.sharpness

    def noise(self, order: Tensor, purpose: str = "token", visit: int = 0) -> Tensor:
        if purpose == "token":
            return self.tokens[visit].gather(1, order)
        assert purpose == "confidence"
        return (-(-self.gumbel[visit].double()).exp()).exp().gather(1, order)

    def draw(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(logits)
        return super().draw(logits, noise)


def by_confidence(
    golden: Golden, strategy: MaskGIT, tokens: Tensor
) -> tuple[Plan, Forced, list[Tensor], Decoded]:
    """A decode of tokens [S, B, N] by the recorded noise, and what the network was fed at each step."""
    sampling, labels, fed = golden.sampling, golden.io["labels"], list[Tensor]()
    _, network = build(golden)
    network.token_embedding.register_forward_pre_hook(lambda _, args: fed.append(args[0].clone()))
    streams = Streams(0, tuple(range(len(labels))))
    plan = strategy.plan(network.config.grid, sampling["step"], streams)
    sampler = Forced(tokens, golden.io.get("gumbel"), sampling.get("sm_temp", 1.0))
    guidance = by_family(golden.family).setting(sampling).guidance
    return plan, sampler, fed, decode(network, strategy, plan, labels, sampler, guidance)


def options(golden: Golden) -> dict[str, object]:
    sampling = golden.sampling
    return {
        "schedule": sampling.get("sched_mode", "arccos"),
        "noise": sampling.get("randomize", "linear"),
        "noise_scale": sampling.get("r_temp", 4.5),
    }


def replay_decode(golden: Golden) -> float:
    """By confidence with either treatment of known tokens, which forced tokens do not tell apart."""
    if golden.sampling["sampler"] == "halton":
        return replay_halton(golden)
    own = [MaskGIT(resample_known=known, **options(golden)) for known in (False, True)]  # type: ignore[arg-type]
    return max(replay_confidence(golden, strategy) for strategy in own)


def replay_confidence(golden: Golden, strategy: MaskGIT) -> float:
    tokens, steps = golden.io["tokens"], golden.sampling["step"]
    plan, sampler, _, decoded = by_confidence(golden, strategy, tokens.expand(steps, -1, -1))
    assert torch.equal(decoded.tokens, tokens)
    positions, logits = golden.per_step("step_positions"), golden.per_step("step_logits")
    assert decoded.steps == len(positions) == len(logits) == steps
    worst, written = 0.0, torch.zeros_like(tokens, dtype=torch.bool)
    for commit, here, seen, expected in zip(decoded.trace, positions, sampler.seen, logits, strict=True):
        here = torch.atleast_2d(here)
        assert commit.where is not None
        new = commit.where & ~written
        written |= commit.where
        assert torch.equal(new.nonzero()[:, 1].view_as(here), here)
        found = seen.gather(1, here.unsqueeze(2).expand_as(expected))
        worst = max(worst, difference(found, expected))
    assert torch.equal(torch.cat(positions, dim=-1), golden.io["order"])
    assert plan.sizes == tuple(here.shape[-1] for here in positions)
    return worst


def replay_halton(golden: Golden) -> float:
    io, sampling = golden.io, golden.sampling
    _, network = build(golden)
    grid, order = network.config.grid, np.atleast_2d(io["order"].numpy())
    shifts = io["roll"].tolist() if sampling.get("randomize", False) else [0]
    assert np.array_equal(np.stack([np.roll(halton(grid), shift) for shift in shifts]), order)
    strategy = Halton()
    plan = strategy.arrange(grid, order, strategy.sizes(grid, sampling["step"]))
    sampler = Forced(io["tokens"][None], None)
    guidance = by_family(golden.family).setting(sampling).guidance
    decoded = decode(network, strategy, plan, io["labels"], sampler, guidance)
    assert torch.equal(decoded.tokens, io["tokens"])
    positions, logits = golden.per_step("step_positions"), golden.per_step("step_logits")
    assert decoded.steps == len(positions) == len(logits) == sampling["step"]
    for commit, here in zip(decoded.trace, positions, strict=True):
        assert torch.equal(decoded.order[:, commit.places], here.expand(len(decoded.tokens), -1))
    return max(difference(*pair) for pair in zip(sampler.seen, logits, strict=True))


def replay_loss(golden: Golden) -> float:
    io = golden.io
    strategy, network = build(golden)
    labels = with_dropped(golden, io["labels"], network.config.classes)
    order = torch.arange(network.config.places).expand_as(io["tokens"])
    lesson = Lesson(order, shown=~io["mask"])
    with torch.no_grad():
        logits = strategy.taught_logits(network, io["tokens"], labels, lesson)
        loss = strategy.loss(network, io["tokens"], labels, lesson)
    return max(difference(logits, io["logits"]), difference(loss, io["loss"]))


def replay_order(golden: Golden) -> float:
    side, steps = golden.config["input_size"], golden.sampling["step"]
    plan = Halton().plan((side, side), steps, Streams(0, (0,)))
    shifts = golden.io["roll"].tolist() if "roll" in golden.io else [0]
    rolled = np.stack([np.roll(plan.order[0], shift) for shift in shifts])
    assert np.array_equal(rolled, np.atleast_2d(golden.io["order"].numpy()))
    assert plan.sizes == tuple(golden.io["group_sizes"].tolist())
    return 0.0


def replay_other(golden: Golden) -> float:
    if "sampled" in golden.io:
        return replay_resampling(golden)
    for name, known in golden.io.items():
        sampler, *mode, steps, side = name.split(".")
        places, count = int(side.removeprefix("n")) ** 2, int(steps.removeprefix("S"))
        sizes = halton_sizes(places, count) if sampler == "halton" else maskgit_sizes(places, count, *mode)  # type: ignore[arg-type]
        assert list(accumulate(sizes)) == known.tolist(), name
    return 0.0


def replay_resampling(golden: Golden) -> float:
    """Different tokens at each step: what is known takes the new ones."""
    io = golden.io
    strategy = replace(MaskGIT(resample_known=True), **options(golden))  # type: ignore[arg-type]
    _, sampler, fed, decoded = by_confidence(golden, strategy, io["sampled"])
    assert torch.equal(decoded.tokens, io["final"])
    for found, expected in zip(fed, io["codes_in"], strict=True):
        assert torch.equal(found, expected.repeat(len(found) // len(expected), 1))  # for each branch
    return difference(sampler.seen[-1], io["logits_last"])


REPLAYS = {"decode": replay_decode, "loss": replay_loss, "order": replay_order, "other": replay_other}
