"""Replays recordings of ARPG: decodes by schedule and prefill, and group sizes."""

from strategies.arpg import ARPG
from strategies.decoding.schedules import arpg_sizes
from tests.replays import common
from tests.replays.common import Golden


def replay_decode(golden: Golden) -> float:
    schedule = golden.sampling.get("sample_schedule", "arccos")
    known = golden.io.get("known_positions", ())
    places = len(golden.io["tokens"][0]) - len(known)
    steps = min(golden.sampling.get("num_iter", 64), places)
    sizes = arpg_sizes(places, steps, schedule)
    prefill = golden.sampling.get("prefill", ARPG().prefill)
    return common.replay_decode(golden, sizes, schedule=schedule, prefill=prefill)


def replay_other(golden: Golden) -> float:
    """Inpainting, or group sizes."""
    if "known_positions" in golden.io:
        return replay_decode(golden)
    return common.replay_sizes(
        golden, lambda case: arpg_sizes(case["positions"], case["num_iter"], case["sample_schedule"])
    )


REPLAYS = {"decode": replay_decode, "other": replay_other}
