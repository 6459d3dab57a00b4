"""Replays recordings of CoDe: two networks in one decode, and what the drafter hands over."""

import torch

from backbones.networks import Networks
from backbones.tokenizers.vq import code_vectors
from strategies.code import CoDe
from tests.replays.common import Golden, difference
from tests.replays.var import network_of, quantiser_of, replay


def replay_decode(golden: Golden) -> float:
    drafts = golden.sampling["draft_steps"]
    pairs = {role: network_of(golden, f"{role}.", **golden.config[role]) for role in ("drafter", "refiner")}
    base = pairs["refiner"][0]
    strategy = CoDe(
        scales=base.scales, code_width=base.code_width, refined=len(pairs["refiner"][1].sides) - drafts
    )
    worst, fed = replay(golden, strategy, Networks(**{role: one for role, (_, one) in pairs.items()}))
    handed = torch.cat(fed[:drafts], dim=1)
    worst = max(worst, difference(handed, golden.io["draft_inputs"]))
    quantiser, tokens = quantiser_of(golden), golden.io["tokens"]
    maps = quantiser.maps(tokens)[:drafts]
    total = sum(
        quantiser.enlarged(code_vectors(part, quantiser.codebook.weight), k) for k, part in enumerate(maps)
    )
    worst = max(worst, difference(total, golden.io["draft_f_hat"]))
    return max(worst, difference(quantiser.decode(tokens), golden.io["f_hat"]))


REPLAYS = {"decode": replay_decode}
