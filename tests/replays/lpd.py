"""Replays recordings of LPD: besides the common kinds its orders, with every draw forced."""

import numpy as np

from strategies.decoding.orders import LocalityDraws, locality_orders
from tests.replays.common import Golden


def replay_order(golden: Golden) -> float:
    draws = LocalityDraws(*(golden.io[name].numpy() for name in ("first", "tie_rank", "fps_first")))
    config, sizes = golden.config, golden.io["group_sizes"].tolist()
    thresholds = config["proximity_threshold"], config["repulsion_threshold"]
    found = locality_orders(config["grid_size"], sizes, *thresholds, draws)
    assert np.array_equal(found, golden.io["order"].numpy())
    return 0.0


REPLAYS = {"order": replay_order}
