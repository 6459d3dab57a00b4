"""Small worlds, all of whose images are enumerated, and what the network's owner says of them."""

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.contract.recording import Case, randomise
from strategies.decoding.contract.recording import subject as make_subject
from strategies.decoding.contract.requirements import Broken, require
from strategies.decoding.decode import Decoded, OffPlan, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import Sampler
from strategies.decoding.streams import Streams

Grid = tuple[int, int]


@dataclass(frozen=True)
class World:
    """A strategy with a random network of few codes on a small grid."""

    subject: Case
    plan: Plan
    label: int = 1

    @property
    def images(self) -> Tensor:
        """All images, [V^N, N]."""
        codes = range(self.subject.config.codes)
        return torch.tensor(list(itertools.product(codes, repeat=self.plan.places)))

    @property
    def powers(self) -> Tensor:
        """What makes a number of an image's tokens, [N]."""
        return self.subject.config.codes ** torch.arange(self.plan.places).flip(0)

    def sampler(self, images: tuple[int, ...], seed: int = 0) -> Sampler:
        """With a temperature, which a lossless method must meet alike in every draw and test."""
        return self.subject.sampler(images, seed, temperature=1.3)

    def joint(self, sampler: Sampler, guidance: Guidance | None = None) -> Tensor:
        """Probability of every image, one token at a time in the order of the plan: float64 [V^N]."""
        images = self.images
        order = torch.as_tensor(self.plan.order[:1]).expand(len(images), -1)
        logits = one_by_one(self.subject, images, self.label, order, self.plan, guidance)
        probs = sampler.probabilities(logits.float()).double()
        return probs.gather(-1, images.gather(1, order).unsqueeze(-1)).squeeze(-1).prod(dim=1)

    def decoded(
        self,
        strategy: Strategy,
        plan: Plan,
        labels: Tensor,
        sampler: Sampler,
        guidance: Guidance | None = None,
    ) -> Decoded:
        """A decode of the world's network; Broken where the loop refuses it."""
        try:
            return decode(self.subject.network, strategy, plan, labels, sampler, guidance)
        except OffPlan as refusal:
            raise Broken(str(refusal)) from refusal


def owner_of(strategy: Strategy) -> Strategy:
    """Who trained the network."""
    return strategy if strategy.base is None else registry.get(strategy.base)


def one_by_one(
    subject: Case, images: Tensor, label: int, order: Tensor, plan: Plan, guidance: Guidance | None = None
) -> Tensor:
    """The owner's logits of each token given those before it in ``order`` [M, N]: float64 [M, N, V]."""
    lesson = Lesson(order, (1,) * plan.places)
    labels = torch.full((len(images),), label)
    owner = owner_of(subject.strategy)
    with torch.no_grad():
        logits = owner.taught_logits(subject.network, images, labels, lesson).double()
        if guidance is None:
            return logits
        nobody = torch.full_like(labels, subject.config.classes)
        null = owner.taught_logits(subject.network, images, nobody, lesson).double()
    return null + torch.as_tensor(guidance.weights(plan))[:, None] * (logits - null)


def world(subject: Case, grid: Grid, codes: int = 2, steps: int | None = None) -> World:
    """The strategy on a small grid, with weights that make tokens depend on each other."""
    config = replace(subject.config, codes=codes, grid=grid)
    small = make_subject(subject.strategy, config, parts=subject.parts)
    randomise(small.network, std=0.4)
    return World(small, small.plan((0,), steps))


def is_plannable(subject: Case, grid: Grid) -> bool:
    """Whether the strategy has a plan for the grid."""
    try:
        subject.strategy.plan(grid, None, Streams(0, (0,)))
    except UserError:
        return False
    return True


def first_plannable(subject: Case, grids: tuple[Grid, ...]) -> Grid:
    """The first of the grids that the strategy has a plan for; Broken if there is none."""
    found = [grid for grid in grids if is_plannable(subject, grid)]
    require(found, f"no plan on any of the grids {grids}")
    return found[0]
