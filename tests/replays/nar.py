"""Replays recordings of NAR, whose losses were recorded in raster order."""

import torch

from tests.replays import common
from tests.replays.common import Golden


def replay_loss(golden: Golden) -> float:
    tokens = golden.io["tokens"]
    return common.replay_loss(golden, torch.arange(tokens.shape[1]).expand_as(tokens))


REPLAYS = {"loss": replay_loss}
