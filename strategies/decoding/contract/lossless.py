"""The trait ``lossless``: samples exactly what the network decoded one token at a time would.

The judge is the network's owner: the strategy that it was trained by, whose ``taught_logits`` give the
distribution of each token given all tokens before it. A training-free method is not asked what it is taught.
"""

import math

import torch
from torch import Tensor

from strategies.decoding.base import Strategy
from strategies.decoding.contract.branching import Silent, all_branches
from strategies.decoding.contract.recording import Case, run
from strategies.decoding.contract.requirements import close, require
from strategies.decoding.contract.worlds import Grid, World, first_plannable, is_plannable, one_by_one, world
from strategies.decoding.decode import Decoded
from strategies.decoding.sampling import ForcedSampler

WORLDS: tuple[Grid, ...] = ((3, 3), (2, 4), (4, 4))
"""Grids of worlds of two codes, all of whose images are enumerated: large enough for rows and windows."""
LARGE: tuple[Grid, ...] = ((8, 8), (6, 6), (12, 12))
"""Grids on which conditionals are compared at some images: there any window acts."""
BRANCHING: tuple[tuple[Grid, int], ...] = (((1, 4), 3), ((1, 5), 2), ((2, 3), 2))
"""Grids and numbers of codes, all branches of which are enumerated; the last one where those before are few.

With two codes a residual is certain, so no redraw can be wrong; at four places no draft is old enough to be.
"""
FEW_BRANCHES, MOST_BRANCHES = 2_000, 200_000
LEFT_OUT = 1e-3
"""Largest probability of all branches that are left out."""
SAMPLED_WORLDS: tuple[Grid, ...] = ((2, 3), (1, 5), (3, 3))
SAMPLED = 2048
SMALL_BATCH = 16
"""Images of a batch that is not its images one by one."""
QUANTILE = 4.7534
"""Of the normal distribution: a sampled check fails a lossless method once in a million."""


def check_lossless(subject: Case) -> None:
    """The joint distribution of the decode is that of the network decoded one token at a time.

    Where the plan says who draws when: on an enumerable world of 3 x 3 positions and 2 codes, whatever the
    number of steps, and by the conditionals of some images on a large grid. Where the content decides: over
    every branch of draws, tests and redraws of a small world, with drafts both kept and rejected; where the
    first token is asked for alone, of those that begin with the unlikeliest.
    """
    if subject.plan((0,)).opened:
        _require_lossless_branches(subject)
        return
    _require_lossless_joint(subject)
    _require_lossless_conditionals(subject)


def _require_lossless_joint(subject: Case) -> None:
    grid = first_plannable(subject, WORLDS)
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
        _require_equal_joints(decoded, expected, 0.0, f"{steps} steps: ", subject)


def _require_lossless_conditionals(subject: Case) -> None:
    grid = first_plannable(subject, LARGE)
    large = world(subject, grid, codes=5)
    for steps in large.subject.step_counts()[:2]:
        plan = large.subject.plan((0, 1, 2), steps)
        images = large.subject.tokens(3)
        found = run(large.subject, plan, torch.full((3,), large.label), ForcedSampler(images))
        taught = one_by_one(large.subject, images, large.label, found.order, plan)
        what = f"{steps} steps on {grid[0]}x{grid[1]}: log-probabilities as decoded and one by one"
        close(found.logits.log_softmax(-1), taught.float().log_softmax(-1), 2e-4, what, _remedy(subject))


def _remedy(subject: Case) -> str:
    base = subject.strategy.base
    judge = "" if base is None else f" (the judge is its base, '{base}')"
    return f"{judge}; a method that is not exact declares lossless = False"


def _require_lossless_branches(subject: Case) -> None:
    if not subject.strategy.batch_exact:  # branches are rows of one batch
        if not subject.strategy.decides_steps:  # else the check of a batch does this
            _require_lossless_samples(subject)
        return
    tried: dict[str, float] = {}
    for grid, codes in BRANCHING:
        if not is_plannable(subject, grid):
            continue
        small = world(subject, grid, codes)
        tokens, steps, masses = branches_of(small, first_given=True)
        where = f"{len(tokens)} branches on {grid[0]}x{grid[1]} of {codes} codes"
        tried[where] = 1 - float(masses.sum())
        if tried[where] < LEFT_OUT:
            _require_lossless_world(small, tokens, steps, masses, where)
        if codes == 2 and len(tokens) > FEW_BRANCHES:
            break
    shares = ", ".join(f"{where} leave out {share:.1%}" for where, share in tried.items())
    require(
        min(tried.values(), default=1.0) < LEFT_OUT,
        f"too many branches: {shares or 'no plan'}; try a smaller setting: pardec check NAME,option=value",
    )


def _require_lossless_world(small: World, tokens: Tensor, steps: Tensor, masses: Tensor, where: str) -> None:
    index = (tokens * small.powers).sum(dim=1)
    decoded = torch.zeros(len(small.images), dtype=torch.float64).index_add_(0, index, masses)
    expected, left_out = small.joint(small.sampler((0,))), max(1 - float(masses.sum()), 0.0)
    if (tokens[:, 0] == tokens[0, 0]).all():  # the first one was given
        possible = small.images[:, 0] == tokens[0, 0]
        decoded, expected = decoded[possible], expected[possible] / expected[possible].sum()
    _require_equal_joints(decoded, expected, left_out, f"{where}: ", small.subject)
    if not small.subject.strategy.decides_steps:
        return
    likely = steps[masses > 1e-6]
    fewest, most = int(likely.min()), int(likely.max())
    require(fewest < small.plan.places, f"{where}: no draft is ever kept, {fewest} steps at least")
    require(most > fewest, f"{where}: no draft is ever rejected, {fewest} steps always")


def _require_equal_joints(
    decoded: Tensor, expected: Tensor, left_out: float, where: str, subject: Case
) -> None:
    worst = float((decoded - expected).abs().max())
    distance = float((decoded - expected).abs().sum()) / 2
    require(
        worst < 1e-6 + left_out,
        f"{where}an image's probability is off by {worst:.1e}, total variation {distance:.1e}"
        f"{_remedy(subject)}",
    )
    require(float(expected.max() / expected.min()) > 2, "the world is too flat to tell")


def branches_of(small: World, first_given: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, steps and probabilities of all branches of a world, or of those of one first token."""

    def decode_rows(strategy: Strategy, rows: int) -> Decoded:
        labels = torch.full((rows,), small.label)
        return small.decoded(strategy, small.plan, labels, Silent(small.sampler((0,))))

    return all_branches(small.subject.strategy, decode_rows, MOST_BRANCHES, first_given)


def check_lossless_in_a_batch(subject: Case) -> None:
    """Images sampled in a batch, each at its own pace, come as often as one token at a time makes them.

    Guided, by a chi-square test whose threshold a lossless method passes but once in a million. The numbers
    are fixed, so a method that passes does so every time.
    """
    paces = _require_lossless_samples(subject)
    require(paces > 1, "all images of the batch end after the same number of steps: nothing is tried")


def _require_lossless_samples(subject: Case) -> int:
    """How many step counts the images took."""
    small = world(subject, first_plannable(subject, SAMPLED_WORLDS))
    batch = SAMPLED if subject.strategy.batch_exact else SMALL_BATCH
    statistic, threshold, paces = sampled(small, SAMPLED, batch)
    require(
        statistic < threshold,
        f"{SAMPLED} images in batches of {batch}: chi-square {statistic:.0f}, a lossless method stays below "
        f"{threshold:.0f}{_remedy(subject)}",
    )
    return paces


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
    """The statistic over cells of at least 5 expected, the others together, and its quantile."""
    rare = expected < 5
    cells = torch.stack([counts, expected])
    cells = torch.cat([cells[:, ~rare], cells[:, rare].sum(dim=1, keepdim=True)], dim=1)
    cells = cells[:, cells[1] > 0]
    statistic = float(((cells[0] - cells[1]) ** 2 / cells[1]).sum())
    freedom = cells.shape[1] - 1
    # Wilson and Hilferty: the cube root is nearly normal.
    return statistic, freedom * (1 - 2 / (9 * freedom) + QUANTILE * math.sqrt(2 / (9 * freedom))) ** 3
