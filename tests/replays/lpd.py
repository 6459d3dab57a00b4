"""Replays recordings of LPD: besides the common kinds its orders, with every draw forced."""

import math

import numpy as np

from strategies.decoding.orders import LocalityDraws, locality_orders
from tests.replays.common import Golden, replay_decode


def replay_order(golden: Golden) -> float:
    io, config = golden.io, golden.config
    drawn = (io[name].numpy() if name in io else None for name in ("first", "tie_rank", "fps_first"))
    thresholds = config.get("proximity_threshold", 1.0), config.get("repulsion_threshold", 1.0)
    side = config.get("grid_size", math.isqrt(io["order"].shape[-1]))
    found = locality_orders(side, io["group_sizes"].tolist(), *thresholds, LocalityDraws(*drawn))
    assert np.array_equal(found, io["order"].numpy())
    return 0.0


REPLAYS = {"order": replay_order, "other": replay_decode}
