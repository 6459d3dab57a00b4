"""Replays recordings of RandAR: decodes, group sizes, resolution extrapolation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from strategies.decoding.schedules import randar_sizes
from strategies.decoding.streams import Streams
from strategies.randar import RandAR, RandARNetwork
from strategies.zero_shot.randar import ContextGuidance, Extrapolation, extrapolate, small_orders
from tests.replays import common
from tests.replays.common import Golden, RecordingSampler, build, difference


def sizes_of(places: int, sampling: Mapping[str, Any]) -> tuple[int, ...]:
    """Sizes for the published count, where -1 means one token a step."""
    steps = sampling["num_inference_steps"]
    return randar_sizes(places, places if steps == -1 else steps)


def replay_decode(golden: Golden) -> float:
    return common.replay_decode(golden, sizes_of(golden.io["tokens"].shape[1], golden.sampling))


def replay_extrapolation(golden: Golden) -> float:
    strategy, network = build(golden)
    assert isinstance(strategy, RandAR)
    assert isinstance(network, RandARNetwork)
    assert golden.sampling["extrapolation_factor"] == 2
    grid, labels = network.config.grid, golden.io["labels"]
    steps, places = golden.sampling["num_inference_steps"], grid[0] * grid[1]
    settings = Extrapolation(
        4 * places if steps == -1 else steps,
        tuple(golden.sampling["cfg_scales"]),
        tuple(golden.sampling["spatial_cfg_scales"]),
        golden.sampling["spatial_masking_ratio"],
        golden.sampling["ntk_boundary"],
    )
    guidance = settings.guidance(places, Streams(0, tuple(range(len(labels)))))
    if isinstance(guidance, ContextGuidance):
        kept = golden.io["spatial_keep"]
        assert (guidance.kept.sum(axis=1) == kept.sum(dim=1).numpy()).all()
        guidance = replace(guidance, kept=kept.numpy())
    plan = settings.plan(grid, golden.io["order"].numpy())
    assert np.array_equal(small_orders(grid, plan.order), golden.io["low_order"].numpy())
    large = network.enlarged(settings.boundary)
    table = large.phases(torch.arange(1 + plan.places))[:, 0]
    worst = difference(torch.view_as_real(table), golden.io["rope"])
    sampler = RecordingSampler(golden.io["tokens"])
    low = golden.io["low_tokens"]
    arguments = (large, strategy, plan, labels, low, sampler, guidance)
    whole, cut = extrapolate(*arguments), extrapolate(*arguments, published_tail=True)
    assert torch.equal(whole.tokens, golden.io["tokens"])
    assert torch.equal(cut.tokens, golden.io["result_tokens"])
    expected_logits, expected_positions = golden.per_step("step_logits"), golden.per_step("step_positions")
    # The published script stops before the last group.
    assert whole.steps - 1 == len(expected_logits) == len(expected_positions)
    order = torch.from_numpy(plan.order)
    for commit, positions in zip(whole.trace[:-1], expected_positions, strict=True):
        assert torch.equal(order[:, commit.places], positions)
    found = sampler.seen[: len(expected_logits)]
    return max(worst, *(difference(*pair) for pair in zip(found, expected_logits, strict=True)))


def replay_other(golden: Golden) -> float:
    if "low_tokens" in golden.io:
        return replay_extrapolation(golden)
    return common.replay_sizes(golden, lambda case: sizes_of(case["positions"], case))


REPLAYS = {"decode": replay_decode, "other": replay_other}
