"""Replays recordings of PAR: besides the common kinds its order."""

import math

import numpy as np

from strategies.decoding.orders import region_order
from strategies.decoding.registry import by_family
from strategies.decoding.schedules import par_sizes
from strategies.published.par import regions_of
from tests.replays.common import Golden


def replay_order(golden: Golden) -> float:
    config = {**by_family("par").defaults, **golden.config}
    side, regions = math.isqrt(config["block_size"]), regions_of(config)
    assert list(par_sizes(side * side, regions)) == golden.io["group_sizes"].tolist()
    recorded = np.atleast_2d(golden.io["order"].numpy())
    assert (recorded == region_order((side, side), regions)).all()
    return 0.0


REPLAYS = {"order": replay_order}
