"""Replays recordings of NAR, whose losses were recorded in raster order."""

import math
from dataclasses import replace

import torch

from strategies.decoding.orders import diagonal, diagonal_sizes
from tests.replays import common
from tests.replays.common import Golden


def replay_loss(golden: Golden) -> float:
    tokens = golden.io["tokens"]
    raster = torch.arange(tokens.shape[1]).expand_as(tokens)
    return common.replay_loss(replace(golden, io={**golden.io, "order": raster}))


def replay_order(golden: Golden) -> float:
    recorded = golden.io["order"]
    grid = (math.isqrt(recorded.shape[-1]),) * 2
    assert (recorded.numpy() == diagonal(grid)).all()
    assert list(diagonal_sizes(grid)) == golden.io["group_sizes"].tolist()
    return 0.0


REPLAYS = {"loss": replay_loss, "order": replay_order}
