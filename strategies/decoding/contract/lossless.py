"""The trait ``lossless``: samples exactly what the network decoded one token at a time would.

The judge is the network's owner: the strategy that it was trained by, whose ``taught_logits`` give the
distribution of each token given all tokens before it. A training-free method is not asked what it is taught.
"""

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.contract.branching import Silent, all_branches
from strategies.decoding.contract.recording import Subject, randomise, run
from strategies.decoding.contract.recording import subject as make_subject
from strategies.decoding.contract.requirements import Broken, close, require
from strategies.decoding.decode import Decoded, OffPlan, decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.plan import Plan
from strategies.decoding.sampling import ForcedSampler, Sampler
from strategies.decoding.streams import Streams

WORLDS = ((3, 3), (2, 4), (4, 4))
"""Grids of worlds of two codes, all of whose images are enumerated: large enough for rows and windows."""
BRANCHING_WORLDS = ((1, 5), (2, 3), (3, 3))
"""Grids of worlds of two codes, all branches of which are enumerated: the next one where these are few."""
LARGE = ((8, 8), (6, 6), (12, 12))
"""Grids on which conditionals are compared at some images: any window acts there."""
SAMPLED_WORLDS = ((2, 3), (1, 5), (3, 3))
FEW_BRANCHES = 3_000
MOST_BRANCHES = 100_000
SAMPLED = 2048
FALSE_ALARM = 1e-6
"""How often a sampled check fails a lossless method."""


@dataclass(frozen=True)
class World:
    """A strategy with a random network of two codes on a small grid."""

    subject: Subject
    plan: Plan
    label: int = 1

    @property
    def images(self) -> Tensor:
        """All images, [2^N, N]."""
        return torch.tensor(list(itertools.product(range(2), repeat=self.plan.places)))

    @property
    def powers(self) -> Tensor:
        """What makes a number of an image's tokens, [N]."""
        return 2 ** torch.arange(self.plan.places).flip(0)

    def sampler(self, images: tuple[int, ...], seed: int = 0) -> Sampler:
        """With a temperature, which a lossless method must meet alike in every draw and test."""
        return self.subject.sampler(images, seed, temperature=1.3)

    def joint(self, sampler: Sampler, guidance: Guidance | None = None) -> Tensor:
        """Probability of every image, one token at a time in the order of the plan: float64 [2^N]."""
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
    subject: Subject, images: Tensor, label: int, order: Tensor, plan: Plan, guidance: Guidance | None = None
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


def world(subject: Subject, grid: tuple[int, int], codes: int = 2, steps: int | None = None) -> World:
    """The strategy on a small grid, with weights that make tokens depend on each other."""
    config = replace(subject.config, codes=codes, grid=grid)
    small = make_subject(subject.strategy, config, parts=subject.parts)
    randomise(small.network, std=0.4)
    return World(small, small.plan((0,), steps))


def plannable(subject: Subject, grids: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Those of the grids that the strategy has a plan for."""
    found = []
    for grid in grids:
        try:
            subject.strategy.plan(grid, None, Streams(0, (0,)))
            found.append(grid)
        except UserError:
            continue
    require(found, f"no plan on any of the grids {grids}")
    return found


def check_lossless(subject: Subject) -> None:
    """The joint distribution of the decode is that of the network decoded one token at a time.

    Where the plan says who draws when: on an enumerable world of 3 x 3 positions and 2 codes, whatever the
    number of steps, and by the conditionals of some images on a large grid. Where the content decides: over
    every branch of draws, tests and redraws of a small world, with drafts both kept and rejected.
    """
    if subject.strategy.decides_steps:
        _require_lossless_branches(subject)
        return
    _require_lossless_joint(subject)
    _require_lossless_conditionals(subject)


def _require_lossless_joint(subject: Subject) -> None:
    grid = plannable(subject, WORLDS)[0]
    for steps in world(subject, grid).subject.step_counts():
        small = world(subject, grid, steps=steps)
        images = small.images
        numbered = tuple(range(len(images)))
        plan = small.subject.plan(numbered, steps)
        found = run(small.subject, plan, torch.full((len(images),), small.label), ForcedSampler(images))
        targets = images.gather(1, found.order).unsqueeze(-1)
        taught = one_by_one(small.subject, images, small.label, found.order, plan)
        decoded, expected = (
            logits.double().log_softmax(dim=-1).gather(-1, targets).sum(dim=(1, 2)).exp()
            for logits in (found.logits, taught)
        )
        total = float(decoded.sum())
        require(math.isclose(total, 1.0, abs_tol=1e-6), f"probabilities of all images sum to {total}")
        worst = float((decoded - expected).abs().max())
        require(
            worst < 1e-6, f"{steps} steps: an image's probability is off by {worst:.1e}{_remedy(subject)}"
        )
        require(float(expected.max() / expected.min()) > 2, "the world is too flat to tell")


def _require_lossless_conditionals(subject: Subject) -> None:
    grid = plannable(subject, LARGE)[0]
    large = world(subject, grid, codes=5)
    for steps in large.subject.step_counts()[:2]:
        plan = large.subject.plan((0, 1, 2), steps)
        images = large.subject.tokens(3)
        found = run(large.subject, plan, torch.full((3,), large.label), ForcedSampler(images))
        taught = one_by_one(large.subject, images, large.label, found.order, plan)
        what = f"{steps} steps on {grid[0]}x{grid[1]}: log-probabilities as decoded and one by one"
        close(found.logits.log_softmax(-1), taught.float().log_softmax(-1), 2e-4, what, _remedy(subject))


def _remedy(subject: Subject) -> str:
    base = subject.strategy.base
    judge = "" if base is None else f" (the judge is its base, '{base}')"
    return f"{judge}; a method that is not exact declares lossless = False"


def _require_lossless_branches(subject: Subject) -> None:
    for grid in plannable(subject, BRANCHING_WORLDS):
        small = world(subject, grid)
        tokens, steps, masses = branches_of(small)
        where = f"{len(tokens)} branches on {grid[0]}x{grid[1]}"
        left_out = 1 - float(masses.sum())
        require(
            left_out < 1e-3,
            f"{where} leave out {left_out:.1%}; try a smaller setting: pardec check NAME,option=value",
        )
        index = (tokens * small.powers).sum(dim=1)
        decoded = torch.zeros(2**small.plan.places, dtype=torch.float64).index_add_(0, index, masses)
        _require_equal_joints(decoded, small.joint(small.sampler((0,))), left_out, f"{where}: ", subject)
        likely = steps[masses > 1e-6]
        fewest, most = int(likely.min()), int(likely.max())
        require(fewest < small.plan.places, f"{where}: no draft is ever kept, {fewest} steps at least")
        require(most > fewest, f"{where}: no draft is ever rejected, {fewest} steps always")
        if len(tokens) > FEW_BRANCHES:
            return


def _require_equal_joints(
    decoded: Tensor, expected: Tensor, left_out: float, where: str, subject: Subject
) -> None:
    worst = float((decoded - expected).abs().max())
    distance = float((decoded - expected).abs().sum()) / 2
    require(
        worst < 1e-6 + max(left_out, 0),
        f"{where}an image's probability is off by {worst:.1e}, total variation {distance:.1e}"
        f"{_remedy(subject)}",
    )
    require(float(expected.max() / expected.min()) > 2, "the world is too flat to tell")


def branches_of(small: World) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, steps and probabilities of all branches of a world."""

    def decode_rows(strategy: Strategy, rows: int) -> Decoded:
        labels = torch.full((rows,), small.label)
        return small.decoded(strategy, small.plan, labels, Silent(small.sampler((0,))))

    return all_branches(small.subject.strategy, decode_rows, MOST_BRANCHES)


def check_lossless_in_a_batch(subject: Subject) -> None:
    """Images sampled in a batch, each at its own pace, come as often as one token at a time makes them.

    Guided, by a chi-square test whose threshold a lossless method passes but once in a million. The numbers
    are fixed, so a method that passes does so every time.
    """
    small = world(subject, plannable(subject, SAMPLED_WORLDS)[0])
    batch = SAMPLED if subject.strategy.batch_exact else 4
    statistic, threshold, paces = sampled(small, SAMPLED, batch)
    require(paces > 1, "all images of the batch end after the same number of steps: nothing is tried")
    require(
        statistic < threshold,
        f"{SAMPLED} images in batches of {batch}: chi-square {statistic:.0f}, a lossless method stays below "
        f"{threshold:.0f}{_remedy(subject)}",
    )


def sampled(small: World, images: int, batch: int, seed: int = 2) -> tuple[float, float, int]:
    """Chi-square of sampled images against the joint, its threshold, and how many step counts they took."""
    guidance = small.subject.guidance(1.7, schedule="linear") if small.subject.config.null_class else None
    counts = torch.zeros(2**small.plan.places, dtype=torch.float64)
    paces: set[int] = set()
    for first in range(0, images, batch):
        numbered = tuple(range(first, min(first + batch, images)))
        labels = torch.full((len(numbered),), small.label)
        plan, sampler = small.subject.plan(numbered), small.sampler(numbered, seed)
        found = small.decoded(small.subject.strategy, plan, labels, sampler, guidance)
        index = (found.tokens * small.powers).sum(dim=1)
        counts.index_add_(0, index, torch.ones(len(index), dtype=torch.float64))
        paces |= set(found.steps_of_image.tolist())
    expected = small.joint(small.sampler((0,)), guidance) * images
    return *chi_square(counts, expected), len(paces)


def chi_square(counts: Tensor, expected: Tensor) -> tuple[float, float]:
    """The statistic over cells of at least 5 expected, the others together; its ``FALSE_ALARM`` quantile."""
    rare = expected < 5
    cells = torch.stack([counts, expected])
    cells = torch.cat([cells[:, ~rare], cells[:, rare].sum(dim=1, keepdim=True)], dim=1)
    cells = cells[:, cells[1] > 0]
    statistic = float(((cells[0] - cells[1]) ** 2 / cells[1]).sum())
    freedom = cells.shape[1] - 1
    # Wilson and Hilferty: the cube root is nearly normal; 4.75 is the normal's quantile.
    return statistic, freedom * (1 - 2 / (9 * freedom) + 4.7534 * math.sqrt(2 / (9 * freedom))) ** 3
