"""A naive CoDe (arXiv 2411.17787) from the specification alone: one VAR drafts small scales, one refines."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive import var
from tests.naive.parts import Config, recording, seeded
from tests.naive.var_tokenizer import add_up, inputs, prefixed, quantiser_weights
from tests.replays.common import Golden

DRAFTER = {"depth": 2, "embed_dim": 32, "num_heads": 2}
REFINER = {"depth": 2, "embed_dim": 24, "num_heads": 3}


def decode(drafted: Sequence[Tensor], refined: Sequence[Tensor], draft_steps: int) -> list[Tensor]:
    """Logits of every scale: the drafter's of the first ones, then the refiner's, who reads them all."""
    return [*drafted[:draft_steps], *refined[draft_steps:]]


def decoded(
    name: str,
    draft_steps: int,
    sides: Sequence[int] = (1, 2, 3, 4, 6),
    batch: int = 2,
    seed: int = 0,
    drafter: Config | None = None,
    refiner: Config | None = None,
    labels: list[int] | None = None,
    buffers: bool = False,
    unsaid: Sequence[str] = (),
    sampling: dict[str, Any] | None = None,
    **changes: Any,
) -> Golden:
    sizes = {"drafter": drafter or DRAFTER, "refiner": refiner or REFINER}
    config, generator = var.small_config(sides, V=20, Cvae=6, **changes), seeded(seed)
    sampling = {"cfg": 1.5, "top_k": 0, "top_p": 0.0, "temperature": 1.0, **(sampling or {})}
    quantiser = quantiser_weights(config, generator)
    io = var.random_inputs(config, batch, generator, labels)
    fed, totals = inputs(config, quantiser, io["tokens"]), add_up(config, quantiser, io["tokens"])
    state, logits = prefixed("vae_local", quantiser), {}
    for role, size in sizes.items():
        own = {**config, **size}
        weights = var.transformer_weights(own, generator, buffers=buffers)
        logits[role] = var.decode(own, weights, io["labels"], torch.cat(fed, dim=1), sampling["cfg"])
        state |= prefixed(role, weights)
    io |= {
        "draft_inputs": torch.cat(fed[:draft_steps], dim=1),
        "draft_f_hat": totals[draft_steps - 1],
        "f_hat": totals[-1],
        **var.decode_steps(config, decode(logits["drafter"], logits["refiner"], draft_steps)),
    }
    sampling |= {"draft_steps": draft_steps}
    unsaid = (*DRAFTER, *unsaid)
    return recording("code", "decode", name, io, config | sizes, sampling, state, unsaid=unsaid)


SETTINGS: dict[str, dict[str, Any]] = {
    "first-scale-drafted-three-images": {"draft_steps": 1, "batch": 3},
    "last-scale-refined": {"draft_steps": 4},
    "two-scales": {"draft_steps": 1, "sides": (1, 3), "batch": 1},
    "unguided": {"draft_steps": 3, "sampling": {"cfg": 0.0}},
    "guided-backwards": {"draft_steps": 2, "sampling": {"cfg": -0.5}},
    "shared-norms": {"draft_steps": 3, "shared_aln": True, "sampling": {"cfg": 4.0}},
    "small-drafter-large-refiner": {
        "draft_steps": 2,
        "drafter": {"depth": 1, "embed_dim": 16, "num_heads": 1},
        "refiner": {"depth": 3, "embed_dim": 48, "num_heads": 8},
    },
    "drafter-and-refiner-alike": {"draft_steps": 2, "refiner": DRAFTER, "sides": (1, 2, 4, 5)},
    "three-quarters-of-the-convolution": {"draft_steps": 3, "quant_resi": 0.75},
    "labels-that-are-no-class": {"draft_steps": 2, "labels": [-1, 5, 2], "batch": 3},
    "with-buffers": {"draft_steps": 2, "buffers": True},
    "scales-of-top-k-and-temperature": {
        "draft_steps": 3,
        "sampling": {"top_k": [6] * 5, "temperature": [1.1, 1.1, 1.0, 1.0, 1.0], "top_p": 0.96},
    },
    "nine-of-ten-drafted-defaults-unsaid": {"draft_steps": 9, "batch": 1, **var.DEFAULTS},
}

CASES: dict[str, Callable[[], Golden]] = {
    name: partial(decoded, name, **{"seed": seed, **setting})
    for seed, (name, setting) in enumerate(SETTINGS.items())
}
