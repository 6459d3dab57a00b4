"""Replays recordings of ZipAR: whole decodes with what was fed at each step, and schedules."""

import numpy as np
import torch

from backbones.checkpoints import load_published
from strategies.decoding.decode import decode
from strategies.decoding.registry import by_family
from strategies.decoding.streams import Streams
from strategies.zipar import ZipAR, inputs, step_of
from tests.replays.common import Golden, RecordingSampler, difference


def replay_decode(golden: Golden) -> float:
    raster = by_family("llamagen")
    base, config = raster.configure({**raster.defaults, **golden.config})
    network = base.network(config).eval()
    load_published(network, golden.weights, raster.keys, golden.path.name)
    window, tokens = golden.sampling["window"], golden.io["tokens"]
    strategy = ZipAR(window)
    plan = strategy.plan(config.grid, None, Streams(0, (0, 1)))
    assert np.array_equal(plan.order[0], golden.io["order"].numpy())
    for step, fed in enumerate(inputs(config.grid, window)[1:], start=1):
        assert fed.at.tolist() == golden.io[f"fed_positions.{step}"].tolist()
        assert torch.equal(tokens[:, fed.token], golden.io[f"fed_tokens.{step}"])
    sampler = RecordingSampler(tokens)
    guidance = raster.setting(golden.sampling).guidance
    decoded = decode(network, strategy, plan, golden.io["labels"], sampler, guidance)
    expected = golden.per_step("step_logits")
    assert decoded.steps == decoded.forwards == len(expected) == int(golden.io["steps"])
    for commit, positions in zip(decoded.trace, golden.per_step("step_positions"), strict=True):
        assert torch.equal(decoded.order[0, commit.places], positions)
    return max(difference(*pair) for pair in zip(sampler.seen, expected, strict=True))


def replay_schedule(golden: Golden) -> float:
    grid = (golden.config["grid"],) * 2
    for window in golden.sampling["windows"]:
        strategy = ZipAR(window)
        plan = strategy.plan(grid, None, Streams(0, (0,)))
        assert plan.steps == int(golden.io[f"steps.{window}"])
        assert np.array_equal(step_of(grid, window).ravel(), golden.io[f"step_of.{window}"].numpy())
        assert np.array_equal(plan.order[0], golden.io[f"order.{window}"].numpy())
        fed = [len(step.at) for step in inputs(grid, window)]
        assert fed[1:] == golden.io[f"n_fed.{window}"].tolist()[1:]  # the class is recorded as none
    return 0.0


REPLAYS = {"decode": replay_decode, "other": replay_schedule}
