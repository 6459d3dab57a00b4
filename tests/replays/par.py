"""Replays recordings of PAR: besides the common kinds its order."""

import numpy as np

from strategies.decoding.orders import region_order
from strategies.decoding.schedules import par_sizes
from tests.replays.common import Golden


def replay_order(golden: Golden) -> float:
    side, regions = round(golden.config["block_size"] ** 0.5), golden.config["ar_token_num"]
    assert list(par_sizes(side * side, regions)) == golden.io["group_sizes"].tolist()
    assert np.array_equal(region_order((side, side), regions)[None], golden.io["order"].numpy())
    return 0.0


REPLAYS = {"order": replay_order}
