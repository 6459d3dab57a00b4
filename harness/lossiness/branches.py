"""Decoders whose steps depend on what they draw: their joint over all branches, and as sampled in batches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backbones.networks import Networks
from backbones.transformer import Network
from harness.lossiness.conditionals import Undefined
from harness.lossiness.exact import MASS, sequential_joint
from strategies.decoding.base import Strategy
from strategies.decoding.contract.branching import Silent, all_branches
from strategies.decoding.contract.lossless import chi_square
from strategies.decoding.decode import Decoded, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import StreamSampler
from strategies.decoding.streams import Streams

MOST_BRANCHES = 100_000
CODES = 2
"""Most codes of worlds whose branches are enumerated: there are many more of them than images."""
IMAGES = 4096
"""Images sampled for one figure."""
IN_STEP = 4
"""Batch of a decoder whose images depend on their batch; others are sampled in large ones, at their pace."""


def branch_joints(
    network: Network | Networks,
    strategy: Strategy,
    plan: Plan,
    label: int,
    guidance: Guidance | None = None,
    first_given: bool = False,
) -> tuple[Tensor, Tensor]:
    """(one at a time, as decoded at batch 1): float64 [V, ..., V] with an axis per place.

    first_given: given the unlikeliest first token, which then has no axis.

    Raises Undefined where there are too many branches.
    """

    def decode_rows(branching: Strategy, rows: int) -> Decoded:
        sampler = Silent(StreamSampler(Streams(0, (0,))))
        return decode(network, branching, plan, torch.full((rows,), label), sampler, guidance)

    expected = sequential_joint(network, strategy, plan, label, guidance)
    tokens, _, masses = all_branches(strategy, decode_rows, MOST_BRANCHES, first_given)
    if float(masses.sum()) < 1 - MASS:
        raise Undefined(f"strategy '{strategy.name}' has more than {MOST_BRANCHES:,} branches in this world")
    found = torch.zeros(expected.numel(), dtype=torch.float64)
    found.index_add_(0, _numbers(tokens, network.config.codes), masses)
    found = found.clamp(min=1e-300).view(expected.shape)
    if not first_given:
        return expected, found
    first = int(tokens[0, 0])
    return expected[first] / expected[first].sum(), found[first]


@dataclass(frozen=True)
class Sampled:
    """Images drawn in batches against the joint of one token at a time.

    chance: the total variation that so many images of a lossless decoder have on average.
    """

    images: int
    batch: int
    total_variation: float
    chance: float
    chi_square: float
    threshold: float
    """Of chi-square, which a lossless decoder passes but once in a million."""

    @property
    def as_expected(self) -> bool:
        return self.chi_square < self.threshold


def sampled(
    network: Network | Networks, strategy: Strategy, label: int, seed: int, guidance: Guidance | None = None
) -> Sampled:
    """What ``IMAGES`` images of a run with this seed show."""
    batch = IMAGES if strategy.batch_exact else IN_STEP
    grid = network.config.grid
    expected = sequential_joint(
        network, strategy, strategy.plan(grid, None, Streams(seed, (0,))), label, guidance
    )
    counts = torch.zeros(expected.numel(), dtype=torch.float64)
    for start in range(0, IMAGES, batch):
        streams = Streams(seed, tuple(range(start, start + batch)))
        plan, labels = strategy.plan(grid, None, streams), torch.full((batch,), label)
        found = decode(network, strategy, plan, labels, StreamSampler(streams), guidance)
        counts.add_(_numbers(found.tokens, network.config.codes).bincount(minlength=len(counts)))
    p = expected.flatten()
    return Sampled(
        IMAGES,
        batch,
        float((counts / IMAGES - p).abs().sum()) / 2,
        float((2 * p * (1 - p) / (torch.pi * IMAGES)).sqrt().sum()) / 2,
        *chi_square(counts, p * IMAGES),
    )


def _numbers(tokens: Tensor, codes: int) -> Tensor:
    """The number of each image [M, N] among all."""
    return (tokens * codes ** torch.arange(tokens.shape[1]).flip(0)).sum(dim=1)
